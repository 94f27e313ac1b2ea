"""One cell of a Parquet or Arrow file at a time. Neighbouring rows are asked for one after another, so what was read last is
kept: a few dozen rows of a Parquet row group, or one record batch; never a whole file, nor a whole row group of a large one.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...engine.errors import SampleError
from ...engine.statuses import READ_ERROR
from .container_uri import Inside

ROWS_AT_ONCE = 32
"""Rows of a row group that are decoded together."""
BLOCKS_KEPT = 4
"""Threads ask a little out of order; going back further starts the row group anew."""
OPEN_FILES = 4
"""Files per process that stay open."""
BUFFER = 1 << 20

Open = Callable[[], IO[bytes]]


def cell(inside: Inside, file: str, opened: Open) -> Any:
    """The value of the cell, as a Python object.

    Args:
        inside: A `parquet` or `arrow` URI.
        file: Which file it is, and which version; what is open under the same text is used again.
        opened: Opens it.

    Raises:
        SampleError: If there is no such column or row.
    """
    kind = ParquetColumn if inside.kind == "parquet" else ArrowColumn
    with _LOCK:
        return _column(kind, file, inside.column, os.getpid(), _Opener(opened)).value(inside)


_LOCK = threading.Lock()


class _Opener:
    """Equal to every other one, so that the cache does not look at it."""

    def __init__(self, opened: Open):
        self.opened = opened

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opener)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=OPEN_FILES)
def _column(kind: Callable[[IO[bytes], str], Any], file: str, column: str, process: int, opener: _Opener) -> Any:
    return kind(opener.opened(), column)


class ParquetColumn:
    """Cells of one column of a Parquet file."""

    def __init__(self, file: IO[bytes], column: str):
        # buffered and not read ahead, so that a row group of gigabytes passes through a small window
        self._file = pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)
        self._column = _known(column, self._file.schema_arrow.names)
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._next = 0
        self._blocks: OrderedDict[int, pa.RecordBatch] = OrderedDict()

    def value(self, inside: Inside) -> Any:
        block, row = divmod(inside.row, ROWS_AT_ONCE)
        groups = self._file.metadata.num_row_groups
        if inside.group >= groups or inside.row >= self._file.metadata.row_group(inside.group).num_rows:
            raise SampleError(READ_ERROR, f"no row {inside.row} in row group {inside.group}; the file has changed")
        if inside.group != self._group or (block < self._next and block not in self._blocks):
            self._begin(inside.group)
        try:
            self._advance(block)
        except Exception:
            self._group = -1  # damaged: the next row starts the row group anew
            raise
        return self._blocks[block].column(0)[row].as_py()

    def _advance(self, block: int) -> None:
        while self._next <= block:
            self._blocks[self._next] = next(self._batches)
            self._next += 1
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)

    def _begin(self, group: int) -> None:
        self._group, self._next = group, 0
        self._blocks.clear()
        self._batches = self._file.iter_batches(
            ROWS_AT_ONCE, row_groups=[group], columns=[self._column], use_threads=False
        )


class ArrowColumn:
    """Cells of one column of an Arrow stream; of local files only the pages are read that hold the cell."""

    def __init__(self, file: IO[bytes], column: str):
        self._source = pa.PythonFile(file, "r") if not isinstance(file, pa.NativeFile) else file
        self._schema = pa.ipc.open_stream(self._source).schema
        self._place = self._schema.get_field_index(_known(column, self._schema.names))
        self._offset = -1
        self._batch: pa.RecordBatch | None = None

    def value(self, inside: Inside) -> Any:
        [(offset, length)] = inside.ranges
        if self._batch is None or offset != self._offset:
            self._source.seek(offset)
            message = pa.ipc.read_message(pa.BufferReader(self._source.read_buffer(length)))
            self._batch, self._offset = pa.ipc.read_record_batch(message, self._schema), offset
            self._batch.column(self._place).validate(full=True)  # a damaged file must not send us anywhere in memory
        if inside.row >= len(self._batch):
            raise SampleError(READ_ERROR, f"no row {inside.row} in its record batch; the file has changed")
        return self._batch.column(self._place)[inside.row].as_py()


def _known(column: str, names: list[str]) -> str:
    if column not in names:
        raise SampleError(READ_ERROR, f"no column {column!r}; the file has changed")
    return column
