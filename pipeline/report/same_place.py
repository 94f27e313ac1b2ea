"""Where a wrong image's maps for its label and for its prediction are both stored: how much the two overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..pictures.stored_images import stored_map
from .rows import ReportRows, row_key

CANDIDATES = 64
"""Wrong images whose maps are compared, the most confident first."""
SHARE = 0.2


def by_overlap(
    rows: ReportRows, wrong: Sequence[dict[str, Any]], others: Mapping[str, dict[str, Any]]
) -> list[tuple[float, dict[str, Any]]]:
    """Overlap of the two maps of each image, and its row, the largest overlap first; images without both maps are left out."""
    kind = next((name for name in ("map", "map_png") if name in rows.atlas.schema.names), None)
    if kind is None:
        return []
    keys = [row_key(row) for row in (*wrong, *others.values())]
    shape = rows.atlas.metadata.get("map", {})
    maps = {key: stored_map(row[kind], shape) for key, row in rows.details(keys, [kind]).items()}
    scored = []
    for row in wrong:
        other = others.get(row["id"])
        pair = [maps.get(row_key(side)) for side in (row, other) if side is not None]
        if len(pair) == 2 and pair[0] is not None and pair[1] is not None:
            scored.append((overlap(pair[0], pair[1]), row))
    return sorted(scored, key=lambda pair: -pair[0])


def overlap(first: np.ndarray, second: np.ndarray, share: float = SHARE) -> float:
    """Intersection over union of the strongest `share` of the pixels of two maps `(height, width)`; ties by a fixed order."""
    a, b = strongest(first, share), strongest(second, share)
    return float((a & b).sum() / (a | b).sum())


def strongest(map_: np.ndarray, share: float) -> np.ndarray:
    """Which pixels are among the strongest `share`, at least one, as a flat mask."""
    mask = np.zeros(map_.size, bool)
    mask[np.argsort(-map_.ravel(), kind="stable")[: max(1, round(share * map_.size))]] = True
    return mask
