"""Stores in the formats of other programs."""
