"""Average the maps of a class."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ...errors import UsageError
from .images import RowImages
from .view_rows import ViewRows

PER_CLASS = 64
"""Maps that a class's mean is over, at most."""
BLOCK = 1024
"""Rows from which maps are taken together: blocks are drawn, the same ones for every class, so that little of the store is read."""


def class_mean_map(table: ViewRows, images: RowImages, label: int) -> tuple[Float[np.ndarray, "height width"], int]:
    """Mean map of a class, scaled to its own peak, and how many maps it is over.

    Raises:
        UsageError: If the class has no map here.
    """
    rows = table.ask(
        f"SELECT n FROM items WHERE main AND status = 'ok' AND label = ? ORDER BY hash(n // {BLOCK}), draw LIMIT {PER_CLASS}",
        [label],
    )
    pixels = images.maps([row["n"] for row in rows])
    there = [place for place, present in enumerate(pixels.present) if present]
    if not there:
        raise UsageError(f"the class {label} has no map in this store")
    maps = np.frombuffer(pixels.data, np.uint8).reshape(-1, pixels.height, pixels.width)[there]
    mean = maps.mean(axis=0)
    return mean / max(float(mean.max()), 1e-9), len(there)
