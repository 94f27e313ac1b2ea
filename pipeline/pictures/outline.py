"""Outline the strongest region of a map, as an SVG path and as a mask."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

STRONGEST = 0.2
"""Share of the pixels inside the outline."""
LARGEST_SIDE = 56
"""Longer side in cells of a map that is outlined for a page; larger ones are reduced."""


def strongest_region(
    map_: Float[np.ndarray, "height width"], share: float = STRONGEST
) -> Bool[np.ndarray, "height width"]:
    """Mask of the pixels that are at least as strong as the weakest of the strongest `share`; zeros are never inside."""
    kept = max(1, round(share * map_.size))
    limit = np.partition(map_.ravel(), map_.size - kept)[map_.size - kept]
    return (map_ >= limit) & (map_ > 0)


def outline_path(mask: Bool[np.ndarray, "height width"]) -> str:
    """The border of a mask as an SVG path in units of its cells; empty for an empty mask."""
    framed = np.pad(mask, 1)
    parts = []
    for flipped, text in ((False, "M{0} {2}H{1}"), (True, "M{2} {0}V{1}")):
        grid = framed.T if flipped else framed
        changes = grid[1:, 1:-1] != grid[:-1, 1:-1]
        for line, row in enumerate(changes):
            edges = np.flatnonzero(np.diff(np.pad(row.astype(np.int8), 1)))
            parts += [text.format(start, stop, line) for start, stop in edges.reshape(-1, 2).tolist()]
    return "".join(parts)
