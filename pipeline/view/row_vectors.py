"""Vectors of rows by which they are compared and embedded: where a map has its mass, and the features of the whole image."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float16, Int

from ...errors import StorageError, UsageError
from ..features.image_table import features_of
from ..features.neighbours import unit_rows
from ..store.rows_to_table import area_weights
from .images import RowImages
from .stored_columns import StoredColumns
from .view_rows import ViewRows

MAP_SIDE_PIXELS = 7
"""Maps are compared at this many pixels a side: where the mass lies, not its last pixel."""
MOST_ROWS = 200_000
MOST_BYTES = 192_000_000
"""Of the vectors of one kind. Of more rows than find room an even sample, by a digest of the id, is searched."""
AT_ONCE = 4096
FEATURES = "features"


class RowVectors(Protocol):
    """Unit vectors of one kind."""

    name: str
    """As a page asks for it."""

    def of(self, numbers: Sequence[int]) -> Float[np.ndarray, "row number"]:
        """By row number, float32; zeros for rows without.

        Raises:
            UsageError: If the store has none of this kind.
        """
        ...


class MapVectors:
    """Square roots of the maps as distributions over 7x7 places: their product is the Bhattacharyya coefficient."""

    name = "map"

    def __init__(self, images: RowImages):
        self._images = images

    def of(self, numbers: Sequence[int]) -> Float[np.ndarray, "row number"]:
        pixels = self._images.maps(numbers)
        if not pixels.height:
            raise UsageError("this run stored no maps (its store.map is off)")
        maps = np.frombuffer(pixels.data, np.uint8).reshape(-1, pixels.height, pixels.width).astype(np.float32)
        rows, columns = (area_weights(size, min(MAP_SIDE_PIXELS, size)).astype(np.float32) for size in maps.shape[1:])
        reduced = (rows @ maps @ columns.T).reshape(len(maps), -1)
        total = reduced.sum(axis=1, keepdims=True)
        return np.sqrt(reduced / np.where(total > 0, total, 1))


class FeatureVectors:
    """The features of the whole image, of length 1: their product is the cosine.

    From the store's column `features`, else from the table that `heatlas curate --probe` left beside it.
    """

    name = FEATURES

    def __init__(self, table: ViewRows, columns: StoredColumns, images: RowImages):
        self._table, self._columns, self._images = table, columns, images
        self._by_id: tuple[dict[str, int], np.ndarray] | None = None

    @classmethod
    def present(cls, table: ViewRows) -> bool:
        """Whether the store has any."""
        if FEATURES in table.atlas.schema.names:
            return True
        try:
            return features_of(table.atlas) is not None
        except StorageError:
            return False

    def of(self, numbers: Sequence[int]) -> Float[np.ndarray, "row number"]:
        schema = self._table.atlas.schema
        if FEATURES in schema.names:
            width = schema.field(FEATURES).type.list_size
            values = self._columns.lists(FEATURES, self._images.places(numbers), width)
            return unit_rows(np.nan_to_num(values))
        return self._beside(numbers)

    def _beside(self, numbers: Sequence[int]) -> np.ndarray:
        if self._by_id is None:
            features = features_of(self._table.atlas)
            if features is None:
                raise UsageError("this store has no features; `heatlas curate STORE --probe` computes them")
            places = {identity: place for place, identity in enumerate(features.ids)}
            self._by_id = places, unit_rows(features.features.astype(np.float32))
        places, values = self._by_id
        ids = {row["n"]: row["id"] for row in self._table.ask("SELECT n, id FROM items WHERE n IN (SELECT unnest(?))", [list(numbers)])}  # fmt: skip
        vectors = np.zeros((len(numbers), values.shape[1]), np.float32)
        for place, n in enumerate(numbers):
            if ids.get(n) in places:
                vectors[place] = values[places[ids[n]]]
        return vectors


class VectorSample:
    """The vectors of all rows, or of an even sample of them, read when they are first asked for."""

    def __init__(self, table: ViewRows, vectors: RowVectors):
        self.vectors = vectors
        self._table = table
        self._lock = threading.Lock()
        self._loaded: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def numbers(self) -> Int[np.ndarray, " row"]:
        """Of the rows that have a vector, ascending."""
        return self._load()[0]

    @property
    def values(self) -> Float16[np.ndarray, "row number"]:
        return self._load()[1]

    def drawn(self, count: int) -> Int[np.ndarray, " row"]:
        """Places in `numbers` of at most `count` rows, an even sample by a digest of the id, ascending."""
        return np.sort(self._load()[2][:count])

    def _load(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._read()
            return self._loaded

    def _read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        drawn = self._table.arrow(
            f"SELECT n FROM items WHERE main AND status = 'ok' ORDER BY draw, n LIMIT {MOST_ROWS}"
        )
        drawn = drawn["n"].to_numpy().astype(np.int64)
        if not len(drawn):
            raise UsageError("no row of this store has a map")
        width = self.vectors.of(drawn[:1].tolist()).shape[1]
        drawn = drawn[: max(1, MOST_BYTES // (2 * width))]
        numbers = np.sort(drawn)
        parts = [
            self.vectors.of(numbers[start : start + AT_ONCE].tolist()).astype(np.float16)
            for start in range(0, len(numbers), AT_ONCE)
        ]
        values = np.concatenate(parts)
        present = values.any(axis=1)
        numbers, values = numbers[present], values[present]
        drawn = drawn[np.isin(drawn, numbers)]
        return numbers, values, np.searchsorted(numbers, drawn)
