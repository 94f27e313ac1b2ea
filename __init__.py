"""heatlas: explains whole image datasets."""

__version__ = "0.1.0"
