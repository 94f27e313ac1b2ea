"""The floors' names, apart from what draws them, so that reading a store does not wait for torch."""

FLOOR_NAMES = ("random", "gaussian")
"""A random map and a centred Gaussian, see `metrics.floors`."""
