"""Images and maps of a store, read back as the network saw them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UsageError
from ...workers.images.preprocess import Preprocess
from ..sources.listing.detection import item_source
from ..sources.reading.reader import FsspecReader
from ..store.object_rows import OBJECT
from ..store.reader import StoreReader
from ..store.sql import literal

COLUMNS = ("id", "uri", "label", "prediction", "target", "confidence", "status", "error")


def reader_of(run: Mapping[str, Any], *, trust_code: bool = False) -> FsspecReader:
    """Reads a run's images again; what confined the run confines its pictures.

    Args:
        run: Content of its `_run.json`.
        trust_code: Whether a source written in Python, which that file names, may be run.
    """
    code = item_source(run["settings"]["data"]) if trust_code else None
    return FsspecReader(run["fingerprint"].get("data_root"), code=code)


def stored_preprocess(run: Mapping[str, Any]) -> Preprocess:
    """The run's preprocessing, as its fingerprint has it."""
    stored = run["fingerprint"]["preprocess"]
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Preprocess(**values)


def decoding_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """How the run read its files, as a `ModelSpec` takes it."""
    stored = run["fingerprint"].get("preprocess", {})
    said = {name: stored.get(name) for name in ("levels", "clip_levels", "level_kind", "bands")}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}


def rows_of(atlas: StoreReader, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of these ids with the best map there is: the PNG at input resolution, else the numbers.

    Raises:
        UsageError: If the run stored neither.
    """
    kind = next((name for name in ("map_png", "map") if name in atlas.schema.names), None)
    if kind is None:
        raise UsageError(
            f"{atlas.uri} stored no maps (store.map and store.map_png are off), so there is nothing to draw"
        )
    listed = ", ".join(map(literal, ids)) or "NULL"
    own = [OBJECT] if OBJECT in atlas.schema.names else []
    rows = atlas.table([*COLUMNS, *own, kind], where=f"id IN ({listed})").to_pylist()
    shape = atlas.metadata.get("map", {})
    for row in rows:
        row["map"] = stored_map(row.pop(kind), shape)
    return rows


def stored_map(stored: Any, shape: Mapping[str, Any]) -> np.ndarray | None:
    """The stored map as `(height, width)` float32 in [0, 1]; None for a row without."""
    if stored is None:
        return None
    if isinstance(stored, dict):
        return np.asarray(Image.open(io.BytesIO(stored["bytes"])), dtype=np.float32) / 255
    return np.asarray(stored, dtype=np.float32).reshape(shape["height"], shape["width"])
