"""Measure how far explanations moved from one run to the other; maps are read a few MB at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from ...errors import StorageError
from ..store.part_files import part_file
from ..store.part_reader import open_file
from ..store.reader import StoreReader
from ..store.rows_to_table import area_average
from .pairs import Pairs, fine

SIDE = 14
"""Maps are compared at no more than this many pixels a side: where the evidence lies, not its last pixel."""
AT_ONCE = 2048
"""Pairs whose maps are in memory together."""
KEPT = 8
"""Row groups of each run that are kept, for runs whose rows stand in another order."""


@dataclass(frozen=True)
class Movement:
    """Movement of the maps, each `(pair,)`, NaN where a pair lacks a map."""

    distance: np.ndarray
    """Share of the map's mass that lies elsewhere (total variation of both maps scaled to sum 1), 0 the same to 1 nothing in common."""
    shift: np.ndarray
    """Distance between the centres of mass, in diagonals of the map."""


def measure_movement(pairs: Pairs) -> Movement | None:
    """Measure every pair of which both rows have a map; None if a run stored none.

    Raises:
        StorageError: If a file cannot be read.
    """
    readers = [MapReader(side.atlas) for side in pairs.sides if "map" in side.atlas.metadata]
    if len(readers) < 2:
        return None
    shape = min(SIDE, *(size for reader in readers for size in reader.shape))
    movement = Movement(np.full(len(pairs), np.nan), np.full(len(pairs), np.nan))
    there = np.flatnonzero(np.asarray(fine(pairs).fill_null(False)))
    where = [
        (np.asarray(pairs.table[f"{which}_file"].to_numpy()), np.asarray(pairs.table[f"{which}_place"].to_numpy()))
        for which in ("first", "second")
    ]
    for start in range(0, len(there), AT_ONCE):
        some = there[start : start + AT_ONCE]
        first, second = (
            shares(reader.maps(files[some], rows[some]), shape)
            for reader, (files, rows) in zip(readers, where, strict=True)
        )
        movement.distance[some] = np.abs(first - second).sum(axis=(1, 2)) / 2
        movement.shift[some] = np.linalg.norm(centres(first) - centres(second), axis=1) / np.sqrt(2)
    return movement


def shares(maps: np.ndarray, side: int) -> np.ndarray:
    """`(n, height, width)` -> `(n, side, side)`, each summing to 1; NaN for a map of zeros."""
    if maps.shape[1:] != (side, side):
        rows, columns = (reducing(size, side) for size in maps.shape[1:])
        maps = rows @ maps @ columns.T
    total = maps.sum(axis=(1, 2), keepdims=True)
    return np.divide(maps, total, out=np.full(maps.shape, np.nan, np.float32), where=total > 0)


def reducing(size: int, side: int) -> np.ndarray:
    """`(side, size)`: means over areas, as stored maps were reduced."""
    return area_average(np.eye(size), (side, size)).astype(np.float32)


def centres(maps: np.ndarray) -> np.ndarray:
    """`(n, 2)`: centre of mass from the top and from the left, in shares of the map's sides."""
    side = (np.arange(maps.shape[1]) + 0.5) / maps.shape[1]
    return np.stack([maps.sum(axis=2) @ side, maps.sum(axis=1) @ side], axis=1)


class MapReader:
    """Maps of one run by file and row; row groups come from the disk once while rows are asked for in stored order."""

    def __init__(self, atlas: StoreReader):
        self._atlas = atlas
        facts = atlas.metadata["map"]
        self.shape: tuple[int, int] = (facts["height"], facts["width"])
        self._groups: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._edges: dict[str, np.ndarray] = {}

    def maps(self, files: Sequence[str] | np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float32 `(n, height, width)` of rows that have a map."""
        maps = np.empty((len(rows), self.shape[0] * self.shape[1]), np.float32)
        for name in dict.fromkeys(files):
            mine = np.flatnonzero(np.asarray(files) == name)
            edges = self._edges_of(name)
            groups = np.searchsorted(edges, rows[mine], side="right") - 1
            for group in np.unique(groups).tolist():
                some = mine[groups == group]
                maps[some] = self._group(name, group)[rows[some] - edges[group]]
        return maps.reshape(-1, *self.shape)

    def _edges_of(self, name: str) -> np.ndarray:
        if name not in self._edges:
            with self._open(name) as opened:
                counts = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
            self._edges[name] = np.cumsum([0, *counts])
        return self._edges[name]

    def _group(self, name: str, group: int) -> np.ndarray:
        key = (name, group)
        if key not in self._groups:
            with self._open(name) as opened:
                self._groups[key] = _with_zeros(opened, group)
            if len(self._groups) > KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _open(self, name: str):
        file = part_file(name)
        if file is None:
            raise StorageError(f"{name} is no part file of {self._atlas.uri}; open the store again")
        return open_file(self._atlas.uri, file)


def _with_zeros(opened: pq.ParquetFile, group: int) -> np.ndarray:
    """The maps of a row group, float16 `(row, value)`, zeros for rows without."""
    column = opened.read_row_group(group, columns=["map"])["map"].combine_chunks()
    side = column.type.list_size
    maps = np.zeros((len(column), side), np.float16)
    maps[column.is_valid().to_numpy(zero_copy_only=False)] = (
        column.flatten().to_numpy(zero_copy_only=False).reshape(-1, side)
    )
    return maps
