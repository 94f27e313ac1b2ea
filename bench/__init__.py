"""Measurements behind every number in README and docs: `python -m bench` lists them, `python -m bench NAME` runs one."""
