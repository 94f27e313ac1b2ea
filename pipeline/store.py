"""The store of one run: part files, which of them are done, their totals and their content's digest.

out/_run.json                     see fingerprint.py
out/maps/part-000042.parquet      one file per shard, named by the shard alone
out/_SUCCESS                      last, with totals
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..engine.errors import ShardsUndoneError, StorageError
from ..workers.shards import Row, Shard
from .commit import put, put_if_absent, sweep_temporaries
from .digests import row_digests
from .location import child, locate, sizes_in
from .query import PARTS, connect_parts, quoted, reading_parts
from .retries import with_retries
from .schema import StoreLayout, metric_columns, rows_to_table, table_to_parquet

MAPS = "maps"
SUCCESS = "_SUCCESS"
_PART = re.compile(r"part-(\d{6,})\.parquet")
_NAMED = 10
"""How many shards a message names before it only counts them."""


def part_path(index: int) -> str:
    """Where the shard `index` is stored, relative to the run's directory."""
    return f"{MAPS}/part-{index:06d}.parquet"


def part_uris(out: str, indices: Sequence[int]) -> list[str]:
    """The full places of some parts."""
    return [child(out, part_path(index)) for index in indices]


def part_index(path: str) -> int:
    """The shard of a part file; the inverse of `part_path` for any path or URI that ends in one."""
    match = _PART.fullmatch(path.rsplit("/", 1)[-1])
    if match is None:
        raise StorageError(f"{path!r} is no part file; parts are called {part_path(42)}")
    return int(match[1])


@dataclass(frozen=True)
class ParquetSink:
    """Commits shards as Parquet files below `out`; picklable, so that it travels into actors."""

    out: str
    layout: StoreLayout

    def commit(self, shard: Shard, rows: Sequence[Row]) -> bool:
        """See `ShardSink.commit`."""
        data = table_to_parquet(rows_to_table(rows, self.layout))
        return put_if_absent(child(self.out, part_path(shard.index)), data)


def done_shards(out: str) -> dict[int, int]:
    """Index and file size in bytes of every committed shard, in order, by one listing. A directory not there has none.

    Raises:
        StorageError: If the listing fails.
    """
    folder = child(out, MAPS)
    fs, path = locate(folder)
    sizes = with_retries(lambda: sizes_in(fs, path), f"list {folder}")
    found = ((_PART.fullmatch(name), size) for name, size in sizes.items())
    return dict(sorted((int(match[1]), size) for match, size in found if match))


def read_part(out: str, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one committed shard; `columns=None` reads all.

    Raises:
        StorageError: If the file is missing or damaged.
    """
    with _open_part(out, index) as file:
        return file.read(columns=None if columns is None else list(columns))


def read_part_schema(out: str, index: int) -> pa.Schema:
    """Columns and metadata of one committed shard, from its footer.

    Raises:
        StorageError: If the file is missing or damaged.
    """
    with _open_part(out, index) as file:
        return file.schema_arrow


@contextlib.contextmanager
def _open_part(out: str, index: int) -> Iterator[pq.ParquetFile]:
    uri = child(out, part_path(index))
    fs, path = locate(uri)
    try:
        with fs.open(path, "rb") as file:
            yield pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {uri}: {error}; delete that file and run the same `heatlas explain` command again, "
                           "which recomputes only its shard") from error  # fmt: skip


def part_tables(out: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The committed shards one after the other, so that never more than one is in memory."""
    for index in done_shards(out):
        yield read_part(out, index, columns)


def logical_digest(out: str) -> str:
    """Sha256 (hex) of what the store says: equal for any number of workers, kills, resumes and Parquet encodings.

    Rows count as a set, so shard borders do not matter. Left out: `seconds` and `device`, and in error texts the numbers.
    """
    digests = sorted(digest for table in part_tables(out) for digest in row_digests(table))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def write_success(out: str, totals: dict[str, Any]) -> None:
    """Mark the run complete, with its totals, and clear away temporary files of killed writers."""
    put(child(out, SUCCESS), (json.dumps(totals, indent=2, sort_keys=True) + "\n").encode())
    sweep_temporaries(child(out, MAPS))


def read_success(out: str) -> dict[str, Any] | None:
    """The totals of a complete run; None if the run is not complete."""
    uri = child(out, SUCCESS)
    fs, path = locate(uri)
    fs.invalidate_cache()
    if not with_retries(lambda: fs.exists(path), f"read {uri}"):
        return None
    try:
        return json.loads(with_retries(lambda: fs.cat_file(path), f"read {uri}"))
    except ValueError as error:
        raise StorageError(f"{uri} is not valid JSON: {error}; delete it and run the same command again") from error


def row_totals(out: str) -> dict[str, Any]:
    """What is stored so far, without reading maps.

    Returns:
        `shards`, `rows`, `samples`, `statuses` (status -> rows), `forwards`, `seconds` (of all workers together), `bytes`
        and `metrics` (name -> `mean` over the rows that have it, and their `count`).
    """
    done = done_shards(out)
    if not done:
        nothing = dict.fromkeys(("shards", "rows", "samples", "forwards", "bytes"), 0)
        return {**nothing, "seconds": 0.0, "statuses": {}, "metrics": {}}
    uris = part_uris(out, list(done))
    with connect_parts(uris) as database, reading_parts(out):
        metrics = metric_columns(database.table("atlas").columns)
        sums = "".join(f", favg({quoted(name)}), count({quoted(name)})" for name in metrics)
        rows, samples, forwards, seconds, *values = database.execute(
            f"SELECT count(*), count(DISTINCT id), sum(n_forwards)::BIGINT, fsum(seconds){sums} FROM atlas"
        ).fetchall()[0]
        statuses = database.execute("SELECT status, count(*) FROM atlas GROUP BY status ORDER BY status").fetchall()
    pairs = zip(values[::2], values[1::2], strict=True)
    means = {name: {"mean": mean, "count": count} for name, (mean, count) in zip(metrics, pairs, strict=True)}
    return {"shards": len(done), "rows": rows, "samples": samples, "statuses": dict(statuses), "forwards": forwards,
            "seconds": seconds, "bytes": sum(done.values()), "metrics": means}  # fmt: skip


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
    with connect_parts(part_uris(out, list(done))) as database, reading_parts(out):
        counts = database.execute(
            f"SELECT filename, count(DISTINCT id) FROM {PARTS} GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        twice = database.execute(
            f"SELECT id, count(*), list(DISTINCT filename) FROM {PARTS} GROUP BY id "
            "HAVING count(DISTINCT filename) > 1 OR count(*) > count(DISTINCT (target, method)) ORDER BY id LIMIT 1"
        ).fetchall()
    found = dict.fromkeys(planned, 0) | {part_index(name): samples for name, samples in counts}
    for index, samples in found.items():
        if samples != planned[index]:
            raise StorageError(f"{child(out, part_path(index))} holds {samples} samples, planned were {planned[index]}; "
                               "delete that file and run the same command again")  # fmt: skip
    for identity, rows, names in twice:
        raise StorageError(f"the id {identity!r} is stored {rows} times, in {', '.join(sorted(names))}; "
                           "delete these files and run the same command again")  # fmt: skip
    return row_totals(out)


def _listed(indices: Sequence[int]) -> str:
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return ", ".join(map(str, indices[:_NAMED])) + more
