"""Which layers an explanation reads, and their feature maps."""
