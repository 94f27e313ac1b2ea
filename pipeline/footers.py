"""Totals of many parts from their footers, read side by side: the last bytes of every file, whatever its size."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from ..engine.errors import StorageError
from .location import bytes_of, child, is_local, locate
from .part_names import MAPS, part_path, written_by
from .retries import with_retries
from .schema import metric_columns
from .summaries import SUMMARY_COLUMNS, PartSummary, stored_summary, summarise

TAIL = 32 * 2**10
"""Bytes that hold nearly every footer: schema, metadata and a few row groups."""
READERS = 16
"""Files read at the same time; object stores answer one request in tens of milliseconds."""


def part_summaries(out: str, done: Mapping[int, int], folder: str = MAPS) -> dict[int, PartSummary]:
    """The totals of the parts `done` of `folder` (index -> bytes, as listed), by index.

    Raises:
        StorageError: Naming the first file that cannot be read.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="footer") as pool:
        return dict(zip(done, pool.map(lambda one: _summary(out, folder, *one), done.items()), strict=True))


def _summary(out: str, folder: str, index: int, size: int) -> PartSummary:
    uri = child(out, part_path(index, folder))
    fs, path = locate(uri)
    try:
        found = stored_summary(_metadata(fs, path, uri, size))
        return found or _from_rows(fs, path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {uri}: {error}; `heatlas verify {out}` finds all damaged files, or delete that file "
                           f"and run the same `{written_by(folder)}` command again, which recomputes only its shard") from error  # fmt: skip


def _metadata(fs: AbstractFileSystem, path: str, uri: str, size: int) -> Mapping[bytes, bytes] | None:
    """The file's metadata from its tail; from the whole file where the footer is longer, or the file was replaced meanwhile."""
    start = max(0, size - TAIL)
    try:
        return _parsed(with_retries(lambda: _bytes_from(fs, path, start), f"read {uri}"))
    except (StorageError, pa.ArrowException, OSError):
        return _parsed(with_retries(lambda: bytes_of(fs, path), f"read {uri}"))


def _bytes_from(fs: AbstractFileSystem, path: str, start: int) -> bytes:
    if not is_local(fs):
        return bytes_of(fs, path, start)
    with open(path, "rb") as file:
        file.seek(start)
        return file.read()


def _parsed(data: bytes) -> Mapping[bytes, bytes] | None:
    return pq.read_metadata(io.BytesIO(data)).metadata


def _from_rows(fs: AbstractFileSystem, path: str) -> PartSummary:
    """For files of other writers: their rows without maps."""
    with fs.open(path, "rb") as file:
        part = pq.ParquetFile(file)
        names = SUMMARY_COLUMNS.union(metric_columns(part.schema_arrow))
        wanted = [name for name in part.schema_arrow.names if name in names]
        return summarise(part.read(columns=wanted), digest=False)
