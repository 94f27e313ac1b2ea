"""Adds the method `plain_gradient` to heatlas."""
