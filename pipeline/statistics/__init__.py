"""Means with intervals, paired tests, and their texts."""
