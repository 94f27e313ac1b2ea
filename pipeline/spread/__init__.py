"""Spread decisions about a few images to all images of a store: who carries the mark, how sure, and where it is."""
