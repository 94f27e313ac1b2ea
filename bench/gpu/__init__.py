"""Measurements on a GPU; their smallest form runs on a CPU."""
