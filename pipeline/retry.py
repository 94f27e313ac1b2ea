"""`--retry-errors`: the error rows of finished shards once more, into the files where they stand.

Only error rows are computed, and only error rows are replaced: what is `ok` when the file is written stays as it is, whoever
wrote it. Each file is replaced in one atomic step, so a retry that is killed has done some files and not the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..engine.statuses import OK, RETRYABLE
from ..workers.shards import Row, Sample, Shard
from .evaluations import KEYS
from .footers import part_summaries
from .plan import samples_of
from .schema import StoreLayout, rows_to_table
from .shard_rows import change_shard
from .store import done_shards, read_part


@dataclass(frozen=True)
class Retry:
    """What is to be computed again."""

    shards: list[Shard]
    """As planned, for their indices."""
    samples: dict[int, list[Sample]]
    """By shard; those with an error row."""
    rows: int = 0
    """Error rows of all these samples."""

    def __len__(self) -> int:
        return sum(map(len, self.samples.values()))


def plan_retry(out: str, plan: Sequence[Shard], listing: pa.Table, leave: Collection[int] = ()) -> Retry:
    """Find the error rows that may come out otherwise, from footers first and then from the files that have any.

    Args:
        out: The run's directory.
        plan: All shards of the run.
        listing: All samples, labels resolved.
        leave: Shards to leave alone, such as those of a moment ago.
    """
    summaries = part_summaries(out, done_shards(out))
    failed = {index for index, one in summaries.items() if RETRYABLE & one.statuses.keys()} - set(leave)
    rows = {index: failed_rows(out, index) for index in sorted(failed)}
    shards = [shard for shard in plan if shard.index in rows]
    samples = {
        shard.index: [one for one in samples_of(listing, shard) if one.id in rows[shard.index]] for shard in shards
    }
    return Retry(shards, samples, sum(count for found in rows.values() for count in found.values()))


def failed_rows(out: str, index: int) -> dict[str, int]:
    """Ids of one finished shard with the number of their rows that may come out otherwise."""
    rows = read_part(out, index, ["id", "status"]).to_pylist()
    return Counter(row["id"] for row in rows if row["status"] in RETRYABLE)


@dataclass(frozen=True)
class RetrySink:
    """Puts recomputed rows in the place of error rows; picklable, so that it travels into actors."""

    out: str
    layout: StoreLayout

    def commit(self, shard: Shard, rows: Sequence[Row]) -> bool:
        """Replace the file of `shard`.

        Returns:
            False if another writer had turned every one of these rows into `ok` before.

        Raises:
            StorageError: When storage fails, or the file is damaged; it is then as it was.
        """
        new = rows_to_table(rows, self.layout)
        return change_shard(self.out, shard.index, lambda stored: merge(stored, new))


def merge(stored: pa.Table, new: pa.Table) -> pa.Table | None:
    """The stored rows in their order, error rows of an id that was computed again replaced by its new rows; None if there are none.

    A target that is `ok` in the store keeps that row; the id's other new rows stand where its first error row stood.
    """
    good = {key for key, fine in zip(_keys(stored), _is_ok(stored), strict=True) if fine}
    fresh: dict[str, list[int]] = {}
    for number, key in enumerate(_keys(new)):
        rows = fresh.setdefault(key[0], [])
        if key not in good:
            rows.append(len(stored) + number)
    old, wanted, placed = list(range(len(stored))), [], set()
    for row, (key, fine) in enumerate(zip(_keys(stored), _is_ok(stored), strict=True)):
        if fine or key[0] not in fresh:
            wanted.append(row)
        elif key[0] not in placed:
            placed.add(key[0])
            wanted += fresh[key[0]]
    if wanted == old:
        return None
    same_schema = new.select(stored.column_names).cast(stored.schema)
    return (
        pa.concat_tables([stored, same_schema]).take(pa.array(wanted)).replace_schema_metadata(stored.schema.metadata)
    )


def _keys(table: pa.Table) -> list[tuple[str, int | None, str]]:
    return list(zip(*(table[name].to_pylist() for name in KEYS), strict=True))


def _is_ok(table: pa.Table) -> list[bool]:
    return pc.equal(table["status"], OK).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
