"""Cluster the maps of every class."""
