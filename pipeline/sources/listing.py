"""The listing: what every source returns, one row per sample, columnar because millions of objects would not fit."""

from __future__ import annotations

import pyarrow as pa

from ...engine.errors import DataError
from ..plan import check_unique_ids

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
"""`label` as written; `boxes` xyxy in pixels of the stored file; `uri` absolute, so that it means the same on any worker."""


def make_listing(columns: dict[str, pa.ChunkedArray | pa.Array], origin: str) -> pa.Table:
    """A table of `LISTING`, sorted by id; columns that are absent become null.

    Raises:
        DataError: When there are no rows or an id names two of them.
    """
    rows = len(columns["uri"])
    if rows == 0:
        raise DataError(f"{origin} lists no samples; give one with at least 1 row")
    arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in LISTING]
    listing = pa.table([array.cast(field.type) for array, field in zip(arrays, LISTING, strict=True)], schema=LISTING)
    check_unique_ids(listing)
    return listing.sort_by("id").combine_chunks()
