"""The location instability of a store's part filters, by landmarks that somebody annotated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ...engine.training.instability import location_instability
from ...errors import UsageError
from ..store.reader import open_store

COLUMNS = ("part_x", "part_y", "part_strength")


@dataclass(frozen=True)
class PartInstability:
    """Of a store's part filters."""

    mean: float
    """Over the filters; NaN where none shares a landmark with two images."""
    filters: tuple[float, ...]
    """Of each, in the order of the store's columns; NaN where it shares none."""
    images: int
    """With landmarks."""


def part_instability(out: str, landmarks: Mapping[str, Mapping[str, tuple[float, float]]]) -> PartInstability:
    """The location instability of the filters whose places a store holds.

    Args:
        out: A store of method `explainer_network`, of objects cropped by their boxes.
        landmarks: By image id and name of the part its place, x and y in [0, 1] of the image as the network sees it.

    Raises:
        UsageError: When the store has no part places, or none of the images.
    """
    store = open_store(out)
    if missing := set(COLUMNS) - set(store.schema.names):
        raise UsageError(f"{out} has no column {min(missing)}; explain with --method explainer_network")
    names = sorted({name for parts in landmarks.values() for name in parts})
    places, peaks, parts = [], [], []
    for batch in store.batches(["id", *COLUMNS], "status = 'ok'"):
        for row in batch.to_pylist():
            if row["id"] in landmarks:
                places.append(np.stack([row["part_x"], row["part_y"]], axis=1))
                peaks.append(row["part_strength"])
                parts.append([landmarks[row["id"]].get(name, (np.nan, np.nan)) for name in names])
    if not places:
        raise UsageError(f"none of the {len(landmarks)} images with landmarks has parts in {out}")
    values = location_instability(
        torch.from_numpy(np.stack(places)).float(),
        torch.tensor(np.array(peaks, dtype=np.float32)),
        torch.tensor(np.array(parts, np.float32)),
    )
    return PartInstability(float(values.nanmean()), tuple(values.tolist()), len(places))
