"""Two runs over the same images, side by side."""
