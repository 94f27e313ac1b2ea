"""Read the maps of a network's blocks, where a method stored them beside its map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import UsageError
from ..store.reader import StoreReader
from ..store.schema import method_columns
from .images import MapPixels, RowImages
from .stored_columns import StoredColumns

MOST_BLOCKS = 64


@dataclass(frozen=True)
class BlockColumn:
    """A stored column with one map per block."""

    name: str
    shape: tuple[int, int, int]
    """Blocks, height, width."""
    meaning: str

    @classmethod
    def of(cls, atlas: StoreReader) -> BlockColumn | None:
        """The first of the store's columns that has a map per block; None without one."""
        for name, facts in method_columns(atlas.schema).items():
            shape = tuple(int(side) for side in facts.get("shape", ()))
            if len(shape) == 3 and min(shape) > 0 and shape[0] <= MOST_BLOCKS and name in atlas.schema.names:
                return cls(name, shape, str(facts.get("meaning", "")))
        return None


def block_maps(column: BlockColumn | None, columns: StoredColumns, images: RowImages, n: int) -> MapPixels:
    """The maps of one row's blocks, all to the scale of the strongest pixel of any of them; absolute values, where a block speaks against.

    Raises:
        UsageError: If the store has no maps of blocks.
        SampleError: If there is no such row.
    """
    if column is None:
        raise UsageError("this store has no maps of blocks")
    count, height, width = column.shape
    values = columns.lists(column.name, images.places([n]), count * height * width)[0]
    if np.isnan(values).any():
        return MapPixels(bytes(count * height * width), height, width, (False,) * count)
    values = np.abs(values)
    pixels = (values / max(float(values.max()), 1e-9) * 255).round().astype(np.uint8)
    return MapPixels(pixels.tobytes(), height, width, (True,) * count)
