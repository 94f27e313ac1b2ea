"""Sentences about rows and classes of a store, every number of which is checked against the row."""
