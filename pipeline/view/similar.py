"""Find the rows whose maps put their mass in the same places, and average the maps of a class."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import UsageError
from ..store.rows_to_table import area_weights
from .images import RowImages
from .view_rows import ViewRows

SIDE = 7
"""Maps are compared at this many pixels a side: where the mass lies, not its last pixel."""
MOST_ROWS = 200_000
"""Rows that are searched; of more an even sample by a digest of the id."""
AT_ONCE = 4096
FOUND = 12
PER_CLASS = 64
"""Maps that a class's mean is over, at most."""


class SimilarMaps:
    """Low-resolution maps of the rows, read when they are first asked for."""

    def __init__(self, table: ViewRows, images: RowImages):
        self._table, self._images = table, images
        self._lock = threading.Lock()
        self._numbers: np.ndarray | None = None
        self._roots = np.empty((0, SIDE * SIDE), np.float32)

    def nearest(self, n: int, count: int = FOUND) -> list[dict[str, Any]]:
        """The rows with the most similar maps: `n` and `similarity`, the Bhattacharyya coefficient of the two maps in [0, 1].

        Raises:
            UsageError: If the run stored no maps, or the row has none.
        """
        own = self._roots_of([n])
        if own is None or not own.any():
            raise UsageError("this row has no map to compare")
        with self._lock:
            if self._numbers is None:
                self._load()
        numbers = self._numbers
        assert numbers is not None
        similarity = self._roots @ own[0]
        similarity[numbers == n] = -1
        best = np.argsort(-similarity, kind="stable")[:count]
        return [{"n": int(numbers[place]), "similarity": round(float(min(similarity[place], 1.0)), 4)} for place in best if similarity[place] > 0]  # fmt: skip

    def class_mean(self, label: int) -> tuple[np.ndarray, int]:
        """Mean map `(height, width)` of a class, scaled to its own peak, and how many maps it is over.

        Raises:
            UsageError: If the class has no map here.
        """
        rows = self._table.ask(
            f"SELECT n FROM items WHERE main AND status = 'ok' AND label = ? ORDER BY file, draw LIMIT {PER_CLASS}",
            [label],
        )
        pixels = self._images.maps([row["n"] for row in rows])
        there = [place for place, present in enumerate(pixels.present) if present]
        if not there:
            raise UsageError(f"the class {label} has no map in this store")
        maps = np.frombuffer(pixels.data, np.uint8).reshape(-1, pixels.height, pixels.width)[there]
        mean = maps.mean(axis=0)
        return mean / max(float(mean.max()), 1e-9), len(there)

    def _load(self) -> None:
        table = self._table.arrow(
            "SELECT n FROM (SELECT n, file, place FROM items WHERE main AND status = 'ok' "
            f"ORDER BY draw LIMIT {MOST_ROWS}) ORDER BY file, place"
        )
        numbers = table["n"].to_numpy()
        parts = [self._roots_of(numbers[start : start + AT_ONCE].tolist()) for start in range(0, len(numbers), AT_ONCE)]
        if any(part is None for part in parts):
            raise UsageError("this run stored no maps (its store.map is off)")
        self._roots = np.concatenate(
            [np.empty((0, SIDE * SIDE), np.float32), *[part for part in parts if part is not None]]
        )
        self._numbers = numbers

    def _roots_of(self, numbers: Sequence[int]) -> np.ndarray | None:
        """Square roots of the maps as distributions, `(row, 49)`; zeros for rows without mass."""
        pixels = self._images.maps(numbers)
        if not pixels.height:
            return None
        maps = np.frombuffer(pixels.data, np.uint8).reshape(-1, pixels.height, pixels.width).astype(np.float32)
        rows, columns = (area_weights(size, min(SIDE, size)).astype(np.float32) for size in maps.shape[1:])
        low = np.zeros((len(maps), SIDE, SIDE), np.float32)
        reduced = rows @ maps @ columns.T
        low[:, : reduced.shape[1], : reduced.shape[2]] = reduced
        total = low.sum(axis=(1, 2), keepdims=True)
        return np.sqrt(low / np.where(total > 0, total, 1)).reshape(len(maps), -1)
