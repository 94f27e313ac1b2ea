"""Rows out of part files and merged files: whole files, single shards, single rows; never more of a file than is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from ..storage.backoff import with_retries
from ..storage.location import is_local, locate
from ..storage.retried_reads import RetriedFileSystem
from .earlier_columns import names_in_file, renamed_table
from .part_files import PartFile
from .part_summary import stored_summaries
from .unreadable_file import read_failure


@contextlib.contextmanager
def open_file(out: str, file: PartFile) -> Iterator[pq.ParquetFile]:
    """One file of a store, to read from; what storage refuses for a moment is asked for again.

    Raises:
        StorageError: If the file is missing, cannot be read or is damaged; from a FileNotFoundError in the first case.
    """
    uri = file.uri(out)
    fs, path = locate(uri)
    try:
        with _opened(fs, path, uri) as opened:
            yield pq.ParquetFile(opened)
    except (OSError, pa.ArrowException) as error:
        raise read_failure(error, out, file) from error


def _opened(fs: AbstractFileSystem, path: str, uri: str) -> Any:
    if is_local(fs):
        return with_retries(lambda: fs.open(path, "rb"), f"read {uri}")
    return RetriedFileSystem(fs).open(path)


def read_file(out: str, file: PartFile, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of one file; `columns=None` reads all columns.

    Raises:
        StorageError: If the file is missing or damaged.
    """
    with open_file(out, file) as opened:
        return renamed_table(opened.read(columns=_stored_names(opened, columns)))


def shard_ranges(opened: pq.ParquetFile, file: PartFile) -> dict[int, tuple[int, int]]:
    """First row and the one behind the last of every shard in a file.

    Raises:
        pa.ArrowInvalid: If the file does not say so, or says something else than its name and its rows.
    """
    rows = opened.metadata.num_rows
    if file.first == file.last:
        return {file.first: (0, rows)}
    summaries = stored_summaries(opened.metadata.metadata)
    if summaries is None or len(summaries) != len(file.shards):
        raise pa.ArrowInvalid("its footer does not say which rows belong to which shard")
    edges = np.cumsum([0, *(summary.rows for summary in summaries)]).tolist()
    if edges[-1] != rows:
        raise pa.ArrowInvalid(f"it has {rows} rows, its footer speaks of {edges[-1]}")
    return {shard: (edges[place], edges[place + 1]) for place, shard in enumerate(file.shards)}


def read_range(opened: pq.ParquetFile, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows `start` to `stop` (not included) of a file, reading only row groups that hold some of them."""
    groups = groups_with(opened, start, stop)
    table = read_groups(opened, groups, columns)
    return table.slice(start - _group_edges(opened)[groups[0]] if groups else 0, stop - start)


def read_groups(opened: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
    """Some row groups of a file, columns under today's names, which stores of earlier versions may not have used."""
    return renamed_table(opened.read_row_groups(list(groups), columns=_stored_names(opened, columns)))


def _stored_names(opened: pq.ParquetFile, columns: Sequence[str] | None) -> list[str] | None:
    return names_in_file(columns, opened.schema_arrow.names)


def groups_with(opened: pq.ParquetFile, start: int, stop: int) -> list[int]:
    """The row groups that hold some of the rows `start` to `stop` (not included)."""
    edges = _group_edges(opened)
    return [group for group in range(opened.num_row_groups) if edges[group] < stop and edges[group + 1] > start]


def read_rows(opened: pq.ParquetFile, rows: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
    """Some rows of a file, in this order, repeats allowed, a row group in memory at a time."""
    edges = _group_edges(opened)
    wanted = np.asarray(rows, dtype=np.int64)
    owners = np.searchsorted(edges, wanted, side="right") - 1
    tables, order = [read_groups(opened, [], columns)], []
    for group in np.unique(owners).tolist():
        places = np.flatnonzero(owners == group)
        tables.append(read_groups(opened, [group], columns).take(pa.array(wanted[places] - edges[group])))
        order.append(places)
    back = np.argsort(np.concatenate([np.empty(0, np.int64), *order]), kind="stable")
    return pa.concat_tables(tables).take(pa.array(back))


def row_groups(
    opened: pq.ParquetFile, columns: Sequence[str] | None = None, rows: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """A file's row groups one after the other; with `rows` (ascending) only these rows, and only groups that hold some."""
    if rows is None:
        for group in range(opened.num_row_groups):
            yield read_groups(opened, [group], columns)
        return
    edges, wanted = _group_edges(opened), np.asarray(rows, dtype=np.int64)
    cuts = np.searchsorted(wanted, edges)
    for group in range(opened.num_row_groups):
        some = wanted[cuts[group] : cuts[group + 1]]
        if len(some):
            yield read_groups(opened, [group], columns).take(pa.array(some - edges[group]))


def shard_tables(opened: pq.ParquetFile, file: PartFile) -> Iterator[tuple[int, pa.Table]]:
    """Every shard of a file with its rows, one after the other; a few row groups are in memory at a time.

    Raises:
        pa.ArrowInvalid: As `shard_ranges`, or if the rows cannot be decoded.
    """
    ranges = shard_ranges(opened, file)
    groups = iter(range(opened.num_row_groups))
    held, before = opened.read_row_groups([]), 0
    for shard, (start, stop) in ranges.items():
        while before + len(held) < stop:
            held = pa.concat_tables([held.slice(start - before), opened.read_row_group(next(groups))])
            before = start
        yield shard, held.slice(start - before, stop - start)


def _group_edges(opened: pq.ParquetFile) -> list[int]:
    """Rows before every row group, and all of them at the end."""
    counts = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
    return np.cumsum([0, *counts]).tolist()
