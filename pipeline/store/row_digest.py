"""A digest per row that depends on the row's content only, not on the file, its encoding or the machine."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

VOLATILE = frozenset({"seconds", "device", "padded_forwards"})
"""Columns that differ between two correct runs: how long, where, and beside what a row was computed."""
NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")
"""In error texts: addresses, process ids, bytes that were free."""


def combined(digests: Iterable[bytes]) -> str:
    """One digest, as 64 hex digits, of a set of them in any order; that of two sets together follows from theirs.

    A sum modulo 2^256, so it needs no sorting, sees a row that is there twice, and parts can be added up without their rows.
    """
    return f"{sum(int.from_bytes(digest) for digest in digests) % 2**256:064x}"


def row_digests(table: pa.Table) -> Iterator[bytes]:
    """Sha256 of every row: plain columns as JSON with exact floats, maps and features as float16, PNGs as the pixels they decode to."""
    plain = [name for name in sorted(table.column_names) if name not in VOLATILE | {"map", "map_png", "features"}]
    rows = table.select(plain).to_pylist()
    maps = _map_bytes(table["map"]) if "map" in table.column_names else [b""] * len(rows)
    pngs = table["map_png"].to_pylist() if "map_png" in table.column_names else [None] * len(rows)
    features = _map_bytes(table["features"]) if "features" in table.column_names else None
    for row, map_bytes, png in zip(rows, maps, pngs, strict=True):
        if row.get("error") is not None:
            row["error"] = NUMBERS.sub("#", row["error"])
        fields = (json.dumps(row, sort_keys=True).encode(), map_bytes, _pixels(png))
        if features is not None:
            fields = (*fields, next(features))
        digest = hashlib.sha256()
        for value in fields:  # lengths first, so that no byte can move from one field to the next unseen
            digest.update(len(value).to_bytes(8, "little") + value)
        yield digest.digest()


def _map_bytes(column: pa.ChunkedArray) -> Iterator[bytes]:
    for chunk in column.chunks:
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        kept = chunk.flatten().to_numpy(zero_copy_only=False)  # without the values under nulls
        present = iter(kept.reshape(int(valid.sum()), -1)) if valid.any() else iter(())
        for has_map in valid:
            yield next(present).astype("<f2").tobytes() if has_map else b""


def _pixels(png: dict[str, Any] | None) -> bytes:
    if png is None:
        return b""
    with Image.open(io.BytesIO(png["bytes"])) as image:
        return repr((image.mode, image.size)).encode() + np.asarray(image).tobytes()
