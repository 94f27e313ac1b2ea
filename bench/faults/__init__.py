"""Kills, freezes, lost nodes and resumption."""
