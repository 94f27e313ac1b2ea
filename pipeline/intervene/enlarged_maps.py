"""Stored maps of some rows at the size of the network's input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ..store.sql import literal
from .groups_of_rows import ExplainedRow
from .places import enlarged_map

if TYPE_CHECKING:
    from ..store.reader import StoreReader


def maps_of_rows(
    atlas: StoreReader, method: str, rows: Sequence[ExplainedRow], size: tuple[int, int]
) -> Float[np.ndarray, "row height width"] | None:
    """Their maps, zeros for a row without one; None where the store has none.

    Args:
        atlas: The store.
        method: Whose maps.
        rows: Ids and targets.
        size: Height and width of the network's input.
    """
    if "map" not in atlas.metadata:
        return None
    by_target: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_target[row.target].append(place)
    shape = atlas.metadata["map"]["height"], atlas.metadata["map"]["width"]
    maps = np.zeros((len(rows), *size), np.float32)
    for target, places in by_target.items():
        ids = [rows[place].id for place in places]
        where = f"method = {literal(method)} AND target = {target} AND map IS NOT NULL"
        stored = {}
        for table in atlas.batches(["id", "map"], where, ids):
            stored |= dict(zip(table["id"].to_pylist(), table["map"].to_pylist(), strict=True))
        for place in places:
            if (values := stored.get(rows[place].id)) is not None:
                maps[place] = enlarged_map(np.asarray(values, np.float32).reshape(shape), size)
    return maps
