"""`--retry-errors`: the error rows of finished shards once more, into the files where they stand.

Only error rows are computed, and only error rows are replaced: what is `ok` when the file is written stays as it is, whoever
wrote it. Each file is replaced in one atomic step, so a retry that is killed has done some files and not the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ...statuses import RETRYABLE
from ...workers.samples import Row, Sample, Shard
from ..shards import samples_of
from ..store.committed_shards import done_shards, read_part
from ..store.footer_reader import part_summaries
from ..store.rewrite_shard import change_shard, merge
from ..store.rows_to_table import build_table
from ..store.schema import StoreLayout


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
    failed = {index for index, sample in summaries.items() if RETRYABLE & sample.statuses.keys()} - set(leave)
    rows = {index: failed_rows(out, index) for index in sorted(failed)}
    shards = [shard for shard in plan if shard.index in rows]
    samples = {
        shard.index: [sample for sample in samples_of(listing, shard) if sample.id in rows[shard.index]]
        for shard in shards
    }
    return Retry(shards, samples, sum(count for counts in rows.values() for count in counts.values()))


def failed_rows(out: str, index: int) -> dict[str, int]:
    """Ids of one finished shard with the number of their rows that may come out otherwise."""
    rows = read_part(out, index, ["id", "status"]).to_pylist()
    return Counter(row["id"] for row in rows if row["status"] in RETRYABLE)


@dataclass(frozen=True)
class RetrySink:
    """Puts recomputed rows in the place of error rows; picklable, so that it travels into actors."""

    out: str
    layout: StoreLayout
    run: str | None = None
    """Identity of the run that computes the rows; None: that of the directory."""

    def commit(self, shard: Shard, rows: Sequence[Row]) -> bool:
        """Replace the file of `shard`.

        Returns:
            False if another writer had turned every one of these rows into `ok` before.

        Raises:
            StorageError: When storage fails, or the file is damaged; it is then as it was.
        """
        new = build_table(rows, self.layout)
        return change_shard(self.out, shard.index, lambda stored: merge(stored, new), run=self.run)
