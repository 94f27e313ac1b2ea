"""Writing one file in the place of several: what stands in it afterwards is compared with what stood in them before it is put."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError
from ..storage.atomic_write import put_if_absent
from ..storage.backoff import with_retries
from ..storage.location import bytes_of, locate
from .part_files import PartFile
from .part_names import MAPS
from .part_origin import expected_run, foreign
from .part_reader import shard_tables
from .part_summary import PartSummary, stored_summaries, stored_summary, summarise, without_summary
from .rewrite_shard import merged_bytes
from .run_file import find_run

Shards = dict[int, tuple[pa.Table, PartSummary]]


def write_merged(out: str, files: Sequence[PartFile]) -> PartFile:
    """Put one file with the rows of these neighbouring files; it does not matter if another writer was faster.

    Raises:
        StorageError: If a file is damaged, or the new one does not read as what was there; nothing was changed then.
    """
    shards: Shards = {}
    for file in files:
        shards |= read_shards(out, file)
    refuse_mixed(out, files, shards)
    merged = PartFile(files[0].first, files[-1].last, folder=files[0].folder)
    tables = {shard: table for shard, (table, _) in shards.items()}
    data = merged_bytes(tables, {shard: summary for shard, (_, summary) in shards.items()})
    compare(merged.uri(out), merged, data, tables)
    put_if_absent(merged.uri(out), data)
    return merged


def compare(uri: str, merged: PartFile, data: bytes, tables: Mapping[int, pa.Table]) -> None:
    """Refuse bytes that do not read as these rows."""
    opened = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    for shard, table in shard_tables(opened, merged):
        if not same(table, tables[shard]):
            raise StorageError(f"shard {shard} of {uri} does not read as it was written, so nothing was changed; look at the "
                               "memory and the Parquet library of this machine")  # fmt: skip


def same(first: pa.Table, second: pa.Table) -> bool:
    """Whether two tables hold the same; NaN, which a column of the data set's own may hold, is like NaN."""
    return first.column_names == second.column_names and all(
        ours.equals(theirs) or (pa.types.is_floating(ours.type) and np.array_equal(_bits(ours), _bits(theirs)))
        for ours, theirs in zip(first.columns, second.columns, strict=True)
    )


def _bits(column: pa.ChunkedArray) -> np.ndarray:
    """Every value of a floating column as what it is in memory, and whether it is there at all."""
    there = column.is_valid().to_numpy()
    values = column.fill_null(0).to_numpy()
    return np.concatenate([there.view(np.uint8), np.ascontiguousarray(values).view(np.uint8)])


def read_shards(out: str, file: PartFile) -> Shards:
    """Rows and totals of every shard in a file; the checksums of its pages are looked at.

    Raises:
        StorageError: If it is damaged or not there; from a FileNotFoundError in the latter case.
    """
    uri = file.uri(out)
    fs, path = locate(uri)
    data = with_retries(lambda: bytes_of(fs, path), f"read {uri}")
    return parsed_shards(out, file, data)


def parsed_shards(out: str, file: PartFile, data: bytes) -> Shards:
    """As `read_shards`, from the file's bytes."""
    try:
        opened = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        tables = dict(shard_tables(opened, file))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {file.uri(out)}: {error}; `heatlas verify {out}` finds all damaged files and says how to "
                           "repair them; then call again") from error  # fmt: skip
    metadata = opened.schema_arrow.metadata
    own_summary = stored_summary(metadata) if file.first == file.last else None
    summaries = (
        [own_summary or summarise(tables[file.first])] if file.first == file.last else stored_summaries(metadata) or ()
    )
    run = expected_run(find_run(out)) if file.folder == MAPS else None
    for shard, summary in zip(file.shards, summaries, strict=True):
        if wrong := foreign(summary.origin, run, shard):
            raise StorageError(f"{file.uri(out)} {wrong}; `heatlas verify {out}` finds all such files and says how to repair the "
                               "store; then call again")  # fmt: skip
    return {shard: (tables[shard], summary) for shard, summary in zip(file.shards, summaries, strict=True)}


def refuse_mixed(out: str, files: Sequence[PartFile], shards: Shards) -> None:
    """Files of different origin stay apart, so that `heatlas verify` can name them."""
    usual = without_summary(shards[files[0].first][0].schema)
    for file in files:
        if not without_summary(shards[file.first][0].schema).equals(usual, check_metadata=True):
            raise StorageError(f"{file.uri(out)} has other columns or another origin than {files[0].name}; "
                               f"`heatlas verify {out}` says which one is wrong and how to repair it; then call again")  # fmt: skip
