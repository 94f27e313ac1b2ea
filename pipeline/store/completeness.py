"""Whether a store holds exactly its plan: every shard, every sample, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ...errors import ShardsUndoneError, StorageError
from ...workers.samples import Shard
from .committed_shards import done_shards
from .footer_reader import part_summaries
from .part_files import DoneShards, PartFile
from .part_origin import ids_digest
from .part_summary import added_up
from .schema import ROW_KEY
from .sql import PARTS, connect_parts, reading_parts

_NAMED = 10
"""How many shards a message names before it only counts them."""


def check_complete(out: str, plan: Sequence[Shard], listing: pa.Table | None = None) -> dict[str, Any]:
    """Verify that the store holds exactly the plan: every shard, every sample, none twice.

    Args:
        out: The run's directory.
        plan: All its shards.
        listing: All its samples, to compare their ids with those that the parts' footers name.

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
    ids = {} if listing is None else planned_ids(listing, plan)
    for index, digest in ids.items():
        origin = summaries[index].origin
        if origin is not None and origin.ids != digest:
            raise StorageError(f"{holder(out, done, index)} holds other samples than planned; move that file away and run the same "
                               "command again")  # fmt: skip
    for identity, rows, names in repeated_ids(out, done.files, at_most=1):
        raise StorageError(f"the id {identity!r} is stored {rows} times, in {', '.join(names)}; "
                           "delete these files and run the same command again")  # fmt: skip
    return {**added_up(summaries.values()), "bytes": sum(done.values())}


def planned_ids(listing: pa.Table, plan: Sequence[Shard]) -> dict[int, str]:
    """Digest of the ids of every shard, as its part's footer should have it."""
    ids = listing["id"].to_pylist()
    return {shard.index: ids_digest(ids[shard.start : shard.stop]) for shard in plan}


def holder(out: str, done: DoneShards, index: int) -> str:
    """The full place of the file that holds a committed shard, and which shard in it, for messages."""
    file = done.file_of(index) or PartFile(index, index)
    return file.uri(out) if file.first == file.last else f"{file.uri(out)} (shard {index})"


def repeated_ids(out: str, files: Sequence[PartFile], at_most: int) -> list[tuple[str, int, list[str]]]:
    """Ids that lie in several files, or several times with the same target and method: id, rows, names of the files."""
    if not files:
        return []
    with connect_parts([file.uri(out) for file in files]) as database, reading_parts(out):
        there = [row[0] for row in database.execute(f"DESCRIBE {PARTS}").fetchall()]
        rest = ", ".join(name for name in ROW_KEY[1:] if name in there)
        repeated = database.execute(
            f"SELECT id, count(*), list(DISTINCT filename) FROM {PARTS} GROUP BY id "
            f"HAVING count(DISTINCT filename) > 1 OR count(*) > count(DISTINCT ({rest})) "
            f"ORDER BY id LIMIT {at_most:d}"
        ).fetchall()
    return [(identity, rows, sorted(names)) for identity, rows, names in repeated]


def _listed(indices: Sequence[int]) -> str:
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return ", ".join(map(str, indices[:_NAMED])) + more
