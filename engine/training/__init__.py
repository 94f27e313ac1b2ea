"""Networks that learn to explain a frozen classifier, and the losses that teach them. Tensors only: no files, no processes."""
