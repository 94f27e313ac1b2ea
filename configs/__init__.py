"""Presets as YAML, found by name: `--config NAME` reads `configs/NAME.yaml`."""
