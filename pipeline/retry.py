"""`--retry-errors`: the error rows of finished shards once more, into the files where they stand.

Only error rows are computed, and only error rows are replaced: what is `ok` when the file is written stays as it is, whoever
wrote it. Each file is replaced in one atomic step, so a retry that is killed has done some files and not the others.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engine.errors import StorageError
from ..engine.statuses import OK, RETRYABLE
from ..workers.shards import Row, Sample, Shard
from .exchange import exchange
from .footers import part_summaries
from .location import child
from .part_names import part_path
from .plan import samples_of
from .schema import StoreLayout, rows_to_table, table_to_parquet
from .store import done_shards, read_part
from .summaries import with_summary


@dataclass(frozen=True)
class Retry:
    """What is to be computed again."""

    shards: list[Shard]
    """As planned, for their indices."""
    samples: dict[int, list[Sample]]
    """By shard; those with an error row."""

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
    done = done_shards(out)
    summaries = part_summaries(out, {shard.index: done[shard.index] for shard in plan if shard.index in done})
    failed = {index for index, one in summaries.items() if RETRYABLE & one.statuses.keys()} - set(leave)
    samples = {shard.index: failed_samples(out, shard, listing) for shard in plan if shard.index in failed}
    return Retry([shard for shard in plan if shard.index in samples], samples)


def failed_samples(out: str, shard: Shard, listing: pa.Table) -> list[Sample]:
    """The samples of one finished shard whose row may come out otherwise."""
    rows = read_part(out, shard.index, ["id", "status"]).to_pylist()
    failed = {row["id"] for row in rows if row["status"] in RETRYABLE}
    return [sample for sample in samples_of(listing, shard) if sample.id in failed]


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
        uri = child(self.out, part_path(shard.index))
        new = rows_to_table(rows, self.layout)

        def change(stored: bytes) -> bytes | None:
            try:
                merged = merge(pq.ParquetFile(io.BytesIO(stored), page_checksum_verification=True).read(), new)
            except (OSError, pa.ArrowException) as error:
                raise StorageError(f"cannot read {uri}: {error}; see `heatlas verify {self.out}`") from error
            return None if merged is None else table_to_parquet(with_summary(merged))

        return exchange(uri, change)


def merge(stored: pa.Table, new: pa.Table) -> pa.Table | None:
    """The stored rows in their order, those that are not `ok` replaced by the new rows of the same id; None if there are none."""
    place = {identity: len(stored) + number for number, identity in enumerate(new["id"].to_pylist())}
    failed = pc.not_equal(stored["status"], OK).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    old = list(range(len(stored)))
    wanted = [place.get(identity, row) if bad else row
              for row, identity, bad in zip(old, stored["id"].to_pylist(), failed, strict=True)]  # fmt: skip
    if wanted == old:
        return None
    same_schema = new.select(stored.column_names).cast(stored.schema)
    return (
        pa.concat_tables([stored, same_schema]).take(pa.array(wanted)).replace_schema_metadata(stored.schema.metadata)
    )
