"""Columns of a data set's own as the store can hold them: text, whole numbers, numbers, booleans; everything else as JSON text."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

Column: TypeAlias = "pa.ChunkedArray | pa.Array"
ROWS_AT_ONCE = 16_384
"""Rows that are Python objects at the same time."""


def is_binary(kind: pa.DataType) -> bool:
    """Whether such a column holds bytes, or images as Hugging Face writes them: nothing for the store."""
    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {kind.field(place).name for place in range(kind.num_fields)}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """An Arrow column in one of the store's types."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain_column(column.cast(kind.value_type))
    if pa.types.is_boolean(kind) or pa.types.is_string(kind):
        return column
    try:
        if pa.types.is_integer(kind):
            return column.cast(pa.int64())
        if pa.types.is_floating(kind):
            return column.cast(pa.float64())
        if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_temporal(kind):
            return column.cast(pa.string())
    except pa.ArrowException:
        pass
    return pa.chunked_array([pa.array([_text(value) for value in column.to_pylist()], pa.string())])


def plain_array(values: Sequence[Any]) -> pa.Array:
    """Values out of JSON in the narrowest of the store's types that holds them all."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float} and all(value is None or abs(value) < 2**1023 for value in values):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # JSON may hold halves of surrogate pairs


def plain_columns(rows: Sequence[dict[str, Any]], but: Iterable[str] = ()) -> dict[str, pa.Array]:
    """All keys of JSON objects as columns, a row that lacks a key with null there."""
    left_out = set(but)
    names = dict.fromkeys(name for row in rows for name in row if name not in left_out)
    return {name: plain_array([row.get(name) for row in rows]) for name in names}


def concat_columns(tables: Sequence[Mapping[str, Column]], rows: Sequence[int]) -> dict[str, pa.ChunkedArray]:
    """The columns of several files, one after the other; null where a file lacks one.

    Where types differ, whole numbers become numbers and everything else becomes text.

    Args:
        tables: The columns of each file.
        rows: How many rows each has.
    """
    columns = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        there = [table[name] for table in tables if name in table]
        kinds = {column.type for column in there if column.null_count < len(column)} or {there[0].type}
        kind = _common(kinds)
        pieces = [_piece(table.get(name), kind, count) for table, count in zip(tables, rows, strict=True)]
        columns[name] = pa.chunked_array([chunk for piece in pieces for chunk in piece], kind)
    return columns


def _common(kinds: set[pa.DataType]) -> pa.DataType:
    if len(kinds) == 1:
        return next(iter(kinds))
    return pa.float64() if kinds == {pa.int64(), pa.float64()} else pa.string()


def _piece(column: Column | None, kind: pa.DataType, rows: int) -> list[pa.Array]:
    if column is None or column.null_count == len(column):
        return [pa.nulls(rows, kind)]
    piece = column.cast(kind)
    return piece.chunks if isinstance(piece, pa.ChunkedArray) else [piece]


class GrowingColumns:
    """Rows out of JSON as columns that grow: a million dictionaries at once would not fit.

    Args:
        but: Keys that are left out.
    """

    def __init__(self, but: Iterable[str] = ()):
        self._but = frozenset(but)
        self._rows: list[dict[str, Any]] = []
        self._done: list[dict[str, pa.Array]] = []
        self._lengths: list[int] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == ROWS_AT_ONCE:
            self._flush()

    def columns(self) -> dict[str, pa.ChunkedArray]:
        """All rows so far."""
        self._flush()
        return concat_columns(self._done, self._lengths)

    def _flush(self) -> None:
        if self._rows:
            self._done.append(plain_columns(self._rows, self._but))
            self._lengths.append(len(self._rows))
            self._rows = []
