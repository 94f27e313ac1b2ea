"""The store of one run: part files, which of them are done, their totals and their content's digest.

out/_run.json                     see fingerprint.py
out/maps/part-000042.parquet      one file per shard, named by the shard alone
out/maps/parts-000000-000063.parquet   several shards merged by `heatlas compact`, see part_files.py
out/_SUCCESS                      last, with totals
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...errors import ShardsUndoneError, StorageError
from ...workers.samples import Row, Shard
from ..storage.atomic_write import put, put_if_absent, sweep_temporaries
from ..storage.backoff import with_retries
from ..storage.compare_and_swap import exchange
from ..storage.json_object import read_object
from ..storage.location import child, locate, sizes_in
from .footer_reader import part_summaries
from .parquet_bytes import table_to_parquet
from .part_files import DoneShards, PartFile, listed
from .part_names import MAPS, SUCCESS, part_path
from .part_reader import open_file, read_range, shard_ranges
from .part_summary import added_up, with_summary
from .row_digest import combined, row_digests
from .rows_to_table import build_table
from .schema import StoreLayout
from .sql import PARTS, connect_parts, reading_parts

_NAMED = 10
"""How many shards a message names before it only counts them."""


@dataclass(frozen=True)
class ParquetSink:
    """Commits shards as Parquet files below `out`; picklable, so that it travels into actors."""

    out: str
    layout: StoreLayout

    def commit(self, shard: Shard, rows: Sequence[Row]) -> bool:
        """See `ShardSink.commit`."""
        data = table_to_parquet(with_summary(build_table(rows, self.layout)))
        return put_if_absent(child(self.out, part_path(shard.index)), data)


def done_shards(out: str, folder: str = MAPS) -> DoneShards:
    """Index and size in bytes of every committed shard, in order, by one listing. A directory not there has none.

    A shard in a merged file has its share of that file's size.

    Args:
        out: The run's directory.
        folder: Where in it the parts lie; the functions below take it too.

    Raises:
        StorageError: If the listing fails.
    """
    place = child(out, folder)
    fs, path = locate(place)
    return listed(with_retries(lambda: sizes_in(fs, path), f"list {place}"), folder)


def file_of(out: str, index: int, folder: str = MAPS) -> PartFile:
    """The file that holds a shard; the shard's own part, also if there is none."""
    return done_shards(out, folder).file_of(index) or PartFile(index, index, folder=folder)


def read_part(out: str, index: int, columns: Sequence[str] | None = None, folder: str = MAPS) -> pa.Table:
    """The rows of one committed shard; `columns=None` reads all.

    Raises:
        StorageError: If the file is missing or damaged.
    """
    file = file_of(out, index, folder)
    with open_file(out, file) as opened:
        return read_range(opened, *shard_ranges(opened, file)[index], columns)


def read_file_schema(out: str, file: PartFile) -> pa.Schema:
    """Columns and metadata of a file, from its footer.

    Raises:
        StorageError: If the file is missing or damaged.
    """
    with open_file(out, file) as opened:
        return opened.schema_arrow


def part_tables(out: str, columns: Sequence[str] | None = None, folder: str = MAPS) -> Iterator[pa.Table]:
    """The committed rows, a few MB of them in memory at a time: in stored order, parts one after the other."""
    for file in done_shards(out, folder).files:
        with open_file(out, file) as opened:
            for group in range(opened.num_row_groups):
                yield opened.read_row_group(group, columns=None if columns is None else list(columns))


def logical_digest(out: str, folder: str = MAPS) -> str:
    """What the store says as 64 hex digits: equal for any number of workers, kills, resumes and Parquet encodings.

    Computed from the rows themselves, not from what the files say of them. Rows count as a set, so shard borders do not matter.
    Left out: `seconds` and `device`, and in error texts the numbers.
    """
    return combined(digest for table in part_tables(out, folder=folder) for digest in row_digests(table))


def write_success(out: str, totals: dict[str, Any]) -> None:
    """Mark the run complete, with its totals, and clear away temporary files of killed writers."""
    put(child(out, SUCCESS), success_bytes(totals))
    sweep_temporaries(child(out, MAPS))


def success_bytes(totals: dict[str, Any]) -> bytes:
    return (json.dumps(totals, indent=2, sort_keys=True) + "\n").encode()


def read_success(out: str) -> dict[str, Any] | None:
    """The totals of a complete run; None if the run is not complete."""
    return read_object(child(out, SUCCESS), "delete it and run the same command again")


def renew_success(out: str, folder: str = MAPS) -> None:
    """Say the new number of bytes in `_SUCCESS`, where there is one and the rows are those it speaks of; clear away temporaries.

    Args:
        out: The run's directory.
        folder: `maps`, or an evaluation's, whose own `_SUCCESS` is meant.
    """
    place = out if folder == MAPS else child(out, folder)
    if read_success(place) is None:
        return
    totals = row_totals(out, folder=folder)

    def change(stored: bytes) -> bytes | None:
        says = json.loads(stored)
        same = all(says.get(name) == totals[name] for name in ("rows", "shards", "digest"))
        return None if not same or says.get("bytes") == totals["bytes"] else success_bytes({**says, "bytes": totals["bytes"]})  # fmt: skip

    try:
        exchange(child(place, SUCCESS), change)
    except StorageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):  # a retry takes it away while it works
            raise
    sweep_temporaries(child(out, folder))


def row_totals(out: str, done: DoneShards | None = None, folder: str = MAPS) -> dict[str, Any]:
    """What is stored so far, from the footers of the parts.

    Args:
        out: The run's directory.
        done: What `done_shards` gave, if it has been asked already.

    Returns:
        As `added_up`, with `bytes`.
    """
    done = done_shards(out, folder) if done is None else done
    return {**added_up(part_summaries(out, done, folder).values()), "bytes": sum(done.values())}


def check_complete(out: str, plan: Sequence[Shard]) -> dict[str, Any]:
    """Verify that the store holds exactly the plan: every shard, every sample, none twice.

    Returns:
        The totals, as `row_totals`.

    Raises:
        ShardsUndoneError: If shards are missing.
        StorageError: If files do not belong to the plan, or hold other rows than planned.
    """
    done, planned = done_shards(out), {shard.index: len(shard) for shard in plan}
    if undone := sorted(planned.keys() - done.keys()):
        raise ShardsUndoneError(f"{len(undone)} of {len(planned)} shards are not done: {_listed(undone)}; "
                                "run the same command again to do them")  # fmt: skip
    if foreign := sorted(done.keys() - planned.keys()):
        raise StorageError(f"{out} holds parts that the plan of {len(planned)} shards does not have: {_listed(foreign)}; "
                           "move them away or choose another --out")  # fmt: skip
    summaries = part_summaries(out, done)
    for index, summary in summaries.items():
        if summary.samples != planned[index]:
            raise StorageError(f"{holder(out, done, index)} holds {summary.samples} samples, planned were {planned[index]}; "
                               "delete that file and run the same command again")  # fmt: skip
    for identity, rows, names in repeated_ids(out, done.files, at_most=1):
        raise StorageError(f"the id {identity!r} is stored {rows} times, in {', '.join(names)}; "
                           "delete these files and run the same command again")  # fmt: skip
    return {**added_up(summaries.values()), "bytes": sum(done.values())}


def holder(out: str, done: DoneShards, index: int) -> str:
    """The full place of the file that holds a committed shard, and which shard in it, for messages."""
    file = done.file_of(index) or PartFile(index, index)
    return file.uri(out) if file.first == file.last else f"{file.uri(out)} (shard {index})"


def repeated_ids(out: str, files: Sequence[PartFile], at_most: int) -> list[tuple[str, int, list[str]]]:
    """Ids that lie in several files, or several times with the same target and method: id, rows, names of the files."""
    if not files:
        return []
    with connect_parts([file.uri(out) for file in files]) as database, reading_parts(out):
        found = database.execute(
            f"SELECT id, count(*), list(DISTINCT filename) FROM {PARTS} GROUP BY id "
            "HAVING count(DISTINCT filename) > 1 OR count(*) > count(DISTINCT (target, method)) "
            f"ORDER BY id LIMIT {at_most:d}"
        ).fetchall()
    return [(identity, rows, sorted(names)) for identity, rows, names in found]


def _listed(indices: Sequence[int]) -> str:
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return ", ".join(map(str, indices[:_NAMED])) + more
