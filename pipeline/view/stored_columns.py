"""Read single columns of single rows of a store, row groups kept in memory up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ..store.part_files import PartFile
from ..store.part_reader import open_file
from ..store.reader import StoreReader

CACHE_BYTES = 192_000_000
"""Decoded row groups that are kept."""
Place = tuple[int, int]
"""Number of the file in the store's order, and the row in it."""


class StoredColumns:
    """Columns of a store's rows by place; safe to use from several threads."""

    def __init__(self, atlas: StoreReader, cache_bytes: int = CACHE_BYTES):
        self._atlas = atlas
        self._limit = cache_bytes
        self._size = 0
        self._groups: OrderedDict[tuple[int, int, str], pa.Array] = OrderedDict()
        self._edges: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self._files: tuple[PartFile, ...] = atlas.files

    def values(self, column: str, places: Sequence[Place]) -> list[pa.Scalar]:
        """One value per place, in this order.

        Raises:
            StorageError: If a file has gone or is damaged.
        """
        with self._lock:
            return [self._value(column, file, row) for file, row in places]

    def lists(self, column: str, places: Sequence[Place], size: int) -> np.ndarray:
        """float32 `(place, size)` of a column of fixed-size lists, such as `map`; NaN for rows without."""
        values = np.full((len(places), size), np.nan, np.float32)
        with self._lock:
            for number, (file, row) in enumerate(places):
                group, inside = self._locate(file, row)
                stored = self._group(file, group, column)
                if stored[inside].is_valid:
                    start = (stored.offset + inside) * size
                    values[number] = stored.values[start : start + size].to_numpy(zero_copy_only=False)
        return values

    def _value(self, column: str, file: int, row: int) -> pa.Scalar:
        group, inside = self._locate(file, row)
        return self._group(file, group, column)[inside]

    def _locate(self, file: int, row: int) -> tuple[int, int]:
        if file not in self._edges:
            with open_file(self._atlas.uri, self._files[file]) as opened:
                counts = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
            self._edges[file] = np.cumsum([0, *counts])
        group = int(np.searchsorted(self._edges[file], row, side="right")) - 1
        return group, row - int(self._edges[file][group])

    def _group(self, file: int, group: int, column: str) -> pa.Array:
        key = (file, group, column)
        if key not in self._groups:
            with open_file(self._atlas.uri, self._files[file]) as opened:
                read = opened.read_row_group(group, columns=[column])[column].combine_chunks()
            values = read.chunk(0) if isinstance(read, pa.ChunkedArray) else read
            self._groups[key] = values
            self._size += values.nbytes
            while self._size > self._limit and len(self._groups) > 1:
                _, oldest = self._groups.popitem(last=False)
                self._size -= oldest.nbytes
        self._groups.move_to_end(key)
        return self._groups[key]
