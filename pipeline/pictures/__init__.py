"""Maps drawn over their images."""
