"""Measurements behind every number in README and docs; each module is one command, `python -m bench.NAME`."""
