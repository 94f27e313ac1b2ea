"""The chance maps' names, apart from what draws them, so that reading a store does not wait for torch."""

CHANCE_MAP_NAMES = ("random", "gaussian")
"""A random map and a centred Gaussian, see `metrics.chance_maps`."""
