"""One cell of a Parquet or Arrow file at a time. Neighbouring rows are asked for one after another, so what was read last is
kept: a few megabytes of a Parquet row group, or one record batch; never a whole file, nor a whole row group of a large one.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ....errors import SampleError
from ....statuses import READ_ERROR
from .container_uri import ContainerUri
from .parquet_bounds import unpacked_too_large

ROWS_AT_ONCE = 32
"""Rows of a row group that are decoded together, fewer where they have more bytes than `BYTES_AT_ONCE`."""
BYTES_AT_ONCE = 4 << 20
BLOCKS_KEPT = 4
"""Threads ask a little out of order; going back further starts the row group anew."""
OPEN_FILES = 4
"""Files per process that stay open."""
BUFFER = 1 << 20

Open = Callable[[], IO[bytes]]


def cell(inside: ContainerUri, file: str, opened: Open) -> Any:
    """The value of the cell, as a Python object.

    Args:
        inside: A `parquet` or `arrow` URI.
        file: Which file it is, and which version; what is open under the same text is used again.
        opened: Opens it.

    Raises:
        SampleError: If there is no such column or row.
    """
    with _LOCK:
        return _column(inside, file, opened).value(inside)


_LOCK = threading.Lock()
_OPEN: OrderedDict[tuple[int, str, str, str], ParquetColumn | ArrowColumn] = OrderedDict()


def _column(inside: ContainerUri, file: str, opened: Open) -> ParquetColumn | ArrowColumn:
    """What is open already, or is opened in the place of what was not asked for longest."""
    key = os.getpid(), inside.kind, file, inside.column
    if key not in _OPEN:
        stream = opened()
        try:
            _OPEN[key] = (ParquetColumn if inside.kind == "parquet" else ArrowColumn)(stream, inside.column)
        except BaseException:
            stream.close()
            raise
        if len(_OPEN) > OPEN_FILES:
            _OPEN.popitem(last=False)[1].close()
    _OPEN.move_to_end(key)
    return _OPEN[key]


class ParquetColumn:
    """Cells of one column of a Parquet file."""

    def __init__(self, file: IO[bytes], column: str):
        # buffered and not read ahead, so that a row group of gigabytes passes through a small window
        self._file = pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)
        self._column = _known(column, self._file.schema_arrow.names)
        self._group = -1
        self._rows = ROWS_AT_ONCE
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._next = 0
        self._blocks: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._stream = file

    def close(self) -> None:
        self._batches = iter(())
        self._file.close()
        self._stream.close()

    def value(self, inside: ContainerUri) -> Any:
        groups = self._file.metadata.num_row_groups
        if inside.group >= groups or inside.row >= self._file.metadata.row_group(inside.group).num_rows:
            raise SampleError(READ_ERROR, f"no row {inside.row} in row group {inside.group}; the file has changed")
        if inside.group != self._group:
            self._begin(inside.group)
        block, row = divmod(inside.row, self._rows)
        if block < self._next and block not in self._blocks:
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
        if why := unpacked_too_large(self._file.metadata.row_group(group), [self._column]):
            raise SampleError(READ_ERROR, why)
        self._group, self._next = group, 0
        self._rows = self._rows_at_once(group)
        self._blocks.clear()
        self._batches = self._file.iter_batches(
            self._rows, row_groups=[group], columns=[self._column], use_threads=False
        )

    def _rows_at_once(self, group: int) -> int:
        facts = self._file.metadata.row_group(group)
        parts = [facts.column(place) for place in range(facts.num_columns)]
        own = [part for part in parts if part.path_in_schema.split(".")[0] == self._column]
        size = sum(part.total_uncompressed_size for part in own)
        if any(part.has_dictionary_page for part in own):  # one value may stand for every row
            return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(1, size)))
        return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE * facts.num_rows // max(1, size)))


class ArrowColumn:
    """Cells of one column of an Arrow stream; of local files only the pages are read that hold the cell."""

    def __init__(self, file: IO[bytes], column: str):
        self._source: Any = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, "r")
        self._schema = pa.ipc.open_stream(self._source).schema
        self._place = self._schema.get_field_index(_known(column, self._schema.names))
        self._offset = -1
        self._batch: Any = None
        self._stream = file

    def close(self) -> None:
        self._batch = None
        self._source.close()
        self._stream.close()

    def value(self, inside: ContainerUri) -> Any:
        [(offset, length)] = inside.ranges
        if self._batch is None or offset != self._offset:
            self._source.seek(offset)
            message = pa.ipc.read_message(pa.BufferReader(self._source.read_buffer(length)))
            batch = pa.ipc.read_record_batch(message, self._schema)
            batch.column(self._place).validate(full=True)  # a damaged file must not send us anywhere in memory
            self._batch, self._offset = batch, offset
        if inside.row >= len(self._batch):
            raise SampleError(READ_ERROR, f"no row {inside.row} in its record batch; the file has changed")
        return self._batch.column(self._place)[inside.row].as_py()


def _known(column: str, names: list[str]) -> str:
    if column not in names:
        raise SampleError(READ_ERROR, f"no column {column!r}; the file has changed")
    return column
