"""Packaged settings, found by name: `--config imagenet-resnet50`."""

from __future__ import annotations

from pathlib import Path


def packaged_configs() -> dict[str, Path]:
    """Name and file of every packaged configuration, sorted by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
