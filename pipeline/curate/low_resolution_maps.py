"""Read stored maps reduced to a low resolution, in a stream, so that those of a whole run fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ...errors import UsageError
from ..store.object_rows import one_object
from ..store.rows_to_table import area_weights
from ..store.sql import reading_parts

if TYPE_CHECKING:
    from ..store.reader import StoreReader

KEYS = ("id", "target", "method")
BATCH = 4096
"""Rows in memory at full resolution at a time."""


@dataclass(frozen=True, eq=False)
class LowMaps:
    """Reduced maps and the columns of their rows, in the same order."""

    rows: pa.Table
    values: Float[np.ndarray, "rows pixels"]
    """float32, each row the averages of the map over equal blocks, from the top left."""
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.values)

    def mass(self) -> Float[np.ndarray, "rows pixels"]:
        """The maps as distributions that sum to 1; a map of zeros is spread evenly."""
        total = self.values.sum(axis=1, keepdims=True)
        return np.where(total > 0, self.values / np.where(total > 0, total, 1), np.float32(1 / self.values.shape[1]))


def low_maps(atlas: StoreReader, side: int, *, where: str = "true", columns: tuple[str, ...] = KEYS) -> LowMaps:
    """The maps of all rows that have one, of several objects of a class in an image that of the largest, the longer side reduced to `side` pixels (never enlarged), sorted by id, target, method.

    Args:
        atlas: The store.
        side: Longer side of the reduced map in pixels.
        where: SQL condition over the store's columns, in addition to `status = 'ok'`.
        columns: Columns of each row to return beside its map.

    Raises:
        UsageError: If the run stored no maps.
        StorageError: If a part cannot be read.
    """
    if "map" not in atlas.metadata:
        raise UsageError(
            "this run stored no maps (its store.map is off); explain the data anew with --store.map into another --out"
        )
    height, width = atlas.metadata["map"]["height"], atlas.metadata["map"]["width"]
    scale = min(1.0, side / max(height, width))
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    tables, blocks = [], []
    for rows, maps in _batches(atlas, where, columns):
        tables.append(rows)
        blocks.append(_reduced(maps.reshape(-1, height, width), shape))
    values = np.concatenate([np.empty((0, shape[0] * shape[1]), np.float32), *blocks])
    schema = pa.schema([atlas.schema.field(name) for name in columns])
    table = pa.concat_tables([schema.empty_table(), *tables])
    order = table.append_column("_row", pa.array(np.arange(len(table)))).sort_by(
        [(name, "ascending") for name in KEYS]
    )["_row"]
    return LowMaps(table.take(order), values[order.to_numpy()], *shape)


def _batches(atlas: StoreReader, where: str, columns: tuple[str, ...]) -> Iterator[tuple[pa.Table, np.ndarray]]:
    names = ", ".join(columns)
    schema = pa.schema([atlas.schema.field(name).remove_metadata() for name in columns])
    with reading_parts(atlas.uri):
        query = f"SELECT {names}, map FROM atlas WHERE status = 'ok' AND map IS NOT NULL AND {one_object(atlas.schema)} AND ({where})"
        for batch in atlas.sql(query).to_arrow_reader(BATCH):
            maps = batch.column(len(columns)).flatten().to_numpy(zero_copy_only=False)
            rows = pa.Table.from_batches([batch]).select(list(columns)).cast(schema)
            yield rows, np.asarray(maps, dtype=np.float32).reshape(len(batch), -1)


def _reduced(maps: Float[np.ndarray, "rows height width"], shape: tuple[int, int]) -> Float[np.ndarray, "rows pixels"]:
    if maps.shape[1:] == shape:
        return maps.reshape(len(maps), -1)
    rows, columns = (
        area_weights(size, fewer).astype(np.float32) for size, fewer in zip(maps.shape[1:], shape, strict=True)
    )
    return (rows @ maps @ columns.T).reshape(len(maps), -1)
