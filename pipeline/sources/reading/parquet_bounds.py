"""How much of a Parquet file may be unpacked: a file of a few kilobytes can hold gigabytes, compressed or as one value repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LARGEST_RATIO = 100
"""Unpacked over stored bytes; images hardly shrink, and texts by less."""
ALWAYS_BYTES = 256 * 2**20
"""Unpacked bytes that are never too many."""
LARGEST_CELL_BYTES = 64 * 2**10
"""Of a listing's cell, on average over its rows."""
ROWS_PER_BYTE = 100
"""Of a listing, at most: ids are unique, so a row takes room."""


def unpacked_too_large(group: Any, columns: Sequence[str]) -> str | None:
    """Why a row group must not be unpacked, in words; None if nothing speaks against it.

    Args:
        group: Its metadata.
        columns: Of the file's schema; all below them counts.
    """
    parts = [
        part
        for place in range(group.num_columns)
        if (part := group.column(place)).path_in_schema.split(".")[0] in columns
    ]
    unpacked, stored = (
        sum(getattr(part, name) for part in parts) for name in ("total_uncompressed_size", "total_compressed_size")
    )
    if unpacked <= ALWAYS_BYTES or unpacked <= LARGEST_RATIO * max(1, stored):
        return None
    return f"{stored:,} bytes that unpack to {unpacked:,} are more than {LARGEST_RATIO} times, which no data set needs"


def read_listing_columns(source: Any, schema: pa.Schema, columns: Sequence[str], stored: int) -> pa.Table:
    """Columns of a listing, each value of a text in memory once until its size is known.

    Args:
        source: The file, open for reading bytes.
        schema: Of the file.
        columns: Names.
        stored: Bytes of the file.

    Raises:
        pa.ArrowInvalid: If it unpacks to more than a listing can have.
    """
    texts = [name for name in columns if pa.types.is_string(schema.field(name).type)]
    file = pq.ParquetFile(source, read_dictionary=texts)
    rows = file.metadata.num_rows
    if rows > ROWS_PER_BYTE * stored:
        raise pa.ArrowInvalid(f"{rows:,} rows in {stored:,} bytes are more than a listing with unique ids can have")
    for number in range(file.metadata.num_row_groups):
        if why := unpacked_too_large(file.metadata.row_group(number), columns):
            raise pa.ArrowInvalid(why)
    table = file.read(columns=list(columns))
    limit = ALWAYS_BYTES + LARGEST_CELL_BYTES * rows
    if (unpacked := sum(_unpacked_bytes(column) for column in table.columns)) > limit:
        raise pa.ArrowInvalid(
            f"its texts would take {unpacked:,} bytes in {rows:,} rows, more than the limit of {limit:,}"
        )
    for name in texts:
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
    return table


def _unpacked_bytes(column: pa.ChunkedArray) -> int:
    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)  # pyright: ignore[reportAttributeAccessIssue]
        total += pc.sum(lengths).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    return total
