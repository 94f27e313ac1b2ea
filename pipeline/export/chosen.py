"""The rows and columns that an export is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ...errors import UsageError, did_you_mean
from ...workers.images.preprocess import Preprocess
from ..pictures.stored_images import reader_of, stored_map, stored_preprocess
from ..sources.listing.selection import select_ids
from ..sources.reading.reader import FsspecReader
from ..store.reader import StoreReader
from ..store.sql import reading_parts
from ..text import class_name

EXPLAINED = ("id", "uri", "label", "prediction", "target", "method", "confidence", "status", "object_id")
"""Columns that say what was explained, of every format with images."""


@dataclass
class Chosen:
    """Some rows of a store, read a few MB at a time, in stored order."""

    atlas: StoreReader
    where: str | None = None
    ids: list[str] | None = None
    columns: tuple[str, ...] | None = None
    """Wanted by the user; None: whatever suits the format."""
    trust_code: bool = False
    """Whether a source written in Python, which the store names, may be run to read images."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about the result; formats add to it."""

    @classmethod
    def of(cls, atlas: StoreReader, where: str | None, ids: str | None, columns: Sequence[str] | None) -> Chosen:
        """Check a request.

        Args:
            atlas: The store.
            where: SQL condition over its columns.
            ids: File that lists ids, as `heatlas explain --ids` takes it.
            columns: Names of columns.

        Raises:
            UsageError: For a condition that DuckDB refuses, an id or a column that the store does not have.
        """
        for name in columns or ():
            if name not in atlas.schema.names:
                raise UsageError(f"--columns {name}: there is no such column{did_you_mean(name, atlas.schema.names)}; "
                                 f"the store has {', '.join(atlas.schema.names)}")  # fmt: skip
        listed = None
        if ids is not None:
            with reading_parts(atlas.uri):
                known = atlas.sql("SELECT DISTINCT id FROM atlas ORDER BY id").to_arrow_table()
            listed = select_ids(known, ids)["id"].to_pylist()
        chosen = cls(atlas, where, listed, tuple(dict.fromkeys(columns)) if columns is not None else None)
        if not chosen.count():
            raise UsageError(f"no row of {atlas.uri} is chosen{f' by --where {where}' if where else ''}; `heatlas status` and "
                             "`heatlas summary` show what is there")  # fmt: skip
        return chosen

    @property
    def names(self) -> tuple[str, ...]:
        """Class names."""
        return self.atlas.class_names

    def count(self) -> int:
        """Rows."""
        return self.atlas.count(self.where, self.ids)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows with these columns."""
        return self.atlas.batches(columns, self.where, self.ids)

    def rows(
        self, columns: Sequence[str], map_column: str | None
    ) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
        """The rows one by one, each with its map `(height, width)` in [0, 1] if it has one.

        Args:
            columns: Names, without the map's.
            map_column: The column to take maps from: `map`, `map_png` or none.
        """
        shape = self.atlas.metadata.get("map", {})
        names = list(dict.fromkeys([*columns, *filter(None, [map_column])]))
        for table in self.batches(names):
            if map_column is None:
                yield from ((row, None) for row in table.to_pylist())
            elif map_column == "map":
                yield from zip(
                    table.drop_columns([map_column]).to_pylist(), _maps(table[map_column], shape), strict=True
                )
            else:
                yield from ((row, stored_map(row.pop(map_column), shape)) for row in table.to_pylist())

    @property
    def reader(self) -> FsspecReader:
        """Reads the run's images again."""
        return reader_of(self.atlas.run, trust_code=self.trust_code)

    def has(self, *columns: str) -> list[str]:
        """Those of these columns that the store has."""
        return [name for name in columns if name in self.atlas.schema.names]

    def name_of(self, index: int | None) -> str | None:
        """The class's name, or `class 3`."""
        return None if index is None else class_name(self.names, index)

    @property
    def preprocess(self) -> Preprocess | None:
        """How images became the network's input; None where the run does not say."""
        stored = self.atlas.run["fingerprint"].get("preprocess", {})
        return stored_preprocess(self.atlas.run) if "resize" in stored else None


def _maps(column: pa.ChunkedArray, shape: Mapping[str, int]) -> Iterator[np.ndarray | None]:
    """The maps of a piece without a Python object per pixel."""
    for chunk in column.chunks:
        values = iter(chunk.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, shape["height"], shape["width"]))  # fmt: skip
        for there in chunk.is_valid().to_pylist():
            yield next(values) if there else None


def is_plain(kind: pa.DataType) -> bool:
    """Whether a value fits in a cell."""
    return not pa.types.is_nested(kind) and not pa.types.is_binary(kind)
