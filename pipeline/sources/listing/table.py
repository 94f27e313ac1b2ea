"""The listing: what every source returns, one row per sample, columnar because millions of objects would not fit."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ....errors import DataError
from ...shards import DRAWN_ON, EXTRA
from .check import check_unique_ids

BOXES = pa.list_(pa.list_(pa.float64()))

LISTING = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("boxes", BOXES),
        pa.field("mask_uri", pa.string()),
    ]
)
"""`label` as written; `boxes` xyxy in pixels of the stored file; `uri` absolute, so that it means the same on any worker.
Behind them the data set's own columns, their names with `EXTRA` in front."""

Column: TypeAlias = "pa.ChunkedArray | pa.Array"


def make_listing(
    columns: Mapping[str, Column], origin: str, extra: Mapping[str, Column] | None = None, *, as_stored: bool = False
) -> pa.Table:
    """A table of `LISTING`, sorted by id; columns that are absent become null.

    Args:
        columns: By the names of `LISTING`; besides `drawn_on`, width and height of the pictures on which boxes were drawn.
        origin: The source as the user wrote it, for messages.
        extra: The data set's own columns, of plain types.
        as_stored: Keep the order, where neighbours lie beside each other in a file and are cheaper to read together.

    Raises:
        DataError: When there are no rows or an id names two of them.
    """
    rows = len(columns["uri"])
    if rows == 0:
        raise DataError(f"{origin} lists no samples; give one with at least 1 row")
    arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in LISTING]
    listing = pa.table([array.cast(field.type) for array, field in zip(arrays, LISTING, strict=True)], schema=LISTING)
    if DRAWN_ON in columns:
        listing = listing.append_column(DRAWN_ON, columns[DRAWN_ON])
    for name, column in (extra or {}).items():
        listing = listing.append_column(EXTRA + name, column)
    check_unique_ids(listing)
    return (listing if as_stored else listing.sort_by("id")).combine_chunks()


def numbered(count: int, prefix: str = "", start: int = 0) -> pa.Array:
    """Ids from row numbers, with nine digits at least, so that their order as text is their order as numbers."""
    digits = pc.utf8_lpad(pa.array(range(start, start + count), pa.int64()).cast(pa.string()), 9, "0")
    return pc.binary_join_element_wise(prefix, digits, "") if prefix else digits


_WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"
_DECIMAL = r"^-?((0|[1-9][0-9]*)([.][0-9]*)?|[.][0-9]+)([eE][-+]?[0-9]+)?$"


def typed_column(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text as whole numbers, numbers or booleans where every value is one; `007` is none."""
    present = pc.drop_null(texts)
    if len(present) == 0:
        return texts
    if _all(present, _WHOLE):
        return texts.cast(pa.int64())
    if _all(present, _DECIMAL):
        return texts.cast(pa.float64())
    if pc.all(pc.is_in(pc.utf8_lower(present), pa.array(["true", "false"]))).as_py():
        return pc.equal(pc.utf8_lower(texts), "true")
    return texts


def _all(texts: pa.ChunkedArray, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(texts, pattern)).as_py()
