"""Totals of many parts from their footers, read side by side: the last bytes of every file, whatever its size."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from ...errors import StorageError
from ..storage.backoff import with_retries
from ..storage.location import bytes_of, is_local, locate
from .part_files import DoneShards, PartFile
from .part_names import MAPS, written_by
from .part_origin import expected_run, foreign
from .part_summary import SUMMARY_COLUMNS, PartSummary, stored_summaries, stored_summary, summarise
from .run_file import find_run
from .schema import metric_columns
from .unreadable_file import read_failure

TAIL = 32 * 2**10
"""Bytes that hold nearly every footer: schema, metadata and a few row groups."""
READERS = 16
"""Files read at the same time; object stores answer one request in tens of milliseconds."""


def part_summaries(out: str, done: DoneShards, folder: str = MAPS) -> dict[int, PartSummary]:
    """The totals of the committed shards `done` of `folder`, by index.

    Raises:
        StorageError: Naming the first file that cannot be read, or that belongs to another run or shard.
    """
    run = expected_run(find_run(out)) if folder == MAPS else None
    with ThreadPoolExecutor(READERS, thread_name_prefix="footer") as pool:
        summaries = pool.map(lambda file: file_summaries(out, file, run), done.files)
        return {index: summary for file, parts in zip(done.files, summaries, strict=True)
                for index, summary in zip(file.shards, parts, strict=True)}  # fmt: skip


def file_summaries(out: str, file: PartFile, run: str | None = None) -> list[PartSummary]:
    """The totals of every shard in a file, in order.

    Args:
        out: The run's directory.
        file: One of its files.
        run: What the file must say of its origin, see `expected_run`.

    Raises:
        StorageError: If the file cannot be read, from a FileNotFoundError where there is none; or belongs to another run or shard.
    """
    summaries = _summaries(out, file)
    for shard, summary in zip(file.shards, summaries, strict=True):
        if wrong := foreign(summary.origin, run, shard):
            raise StorageError(f"{file.uri(out)} {wrong}; `heatlas verify {out}` finds all such files; move it away and run the "
                               f"same `{written_by(file.folder)}` command again, which computes its shard") from None  # fmt: skip
    return summaries


def _summaries(out: str, file: PartFile) -> list[PartSummary]:
    uri = file.uri(out)
    fs, path = locate(uri)
    try:
        metadata = _metadata(fs, path, uri, file.size)
        if file.first == file.last:
            summary = stored_summary(metadata)
            return [summary or _from_rows(fs, path)]
        several = stored_summaries(metadata)
        if several is None or len(several) != len(file.shards):
            raise pa.ArrowInvalid("its footer does not list the shards that its name says")
        return several
    except (OSError, pa.ArrowException) as error:
        raise read_failure(error, out, file) from error


def _metadata(fs: AbstractFileSystem, path: str, uri: str, size: int) -> Mapping[bytes, bytes] | None:
    """The file's metadata from its tail; from the whole file where that fails, or the file was replaced meanwhile."""

    def tail(length: int) -> bytes:
        return with_retries(lambda: _bytes_from(fs, path, max(0, size - length)), f"read {uri}")

    try:
        data = tail(TAIL)
        if (needed := _footer_length(data)) > len(data):
            data = tail(needed)
        return _parsed(data)
    except (StorageError, pa.ArrowException, OSError):
        return _parsed(with_retries(lambda: bytes_of(fs, path), f"read {uri}"))


def _footer_length(data: bytes) -> int:
    """What the last eight bytes of a Parquet file say: the length of the metadata before them, themselves included."""
    return int.from_bytes(data[-8:-4], "little") + 8


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
