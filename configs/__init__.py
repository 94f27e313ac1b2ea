"""Packaged settings, found by name (`--config imagenet-resnet50`), and the recipes of `heatlas curate`."""

from __future__ import annotations

from pathlib import Path


def packaged_configs() -> dict[str, Path]:
    """Name and file of every packaged configuration, sorted by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def packaged_recipes() -> dict[str, Path]:
    """Name and file of every packaged recipe of `heatlas curate`, sorted by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "recipes").glob("*.sql"))}
