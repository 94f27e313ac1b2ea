"""Where workers put the metrics of a shard that was explained before: a part file of its own beside the run's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...workers.samples import Row, Shard
from ..storage.atomic_write import put_if_absent
from ..storage.location import child
from ..store.evaluations import KEYS
from ..store.parquet_bytes import table_to_parquet
from ..store.part_names import part_path
from ..store.part_summary import with_summary
from ..store.rewrite_shard import change_shard
from ..store.rows_to_table import build_table
from ..store.schema import StoreLayout
from .reduced_maps import metric_of


@dataclass(frozen=True)
class MetricsSink:
    """Commits shards of an evaluation as Parquet files; picklable, so that it travels into actors."""

    out: str
    folder: str
    """Of the evaluation, relative to `out`."""
    layout: StoreLayout
    """Without maps; its metrics are the evaluation's."""
    renewed: frozenset[int] = frozenset()
    """Shards whose file is there and is to be replaced, because it does not hold all rows."""

    def commit(self, shard: Shard, rows: Sequence[Row]) -> bool:
        """See `ShardSink.commit`."""
        names = [*KEYS, "uri", "status", "error", *self.layout.metrics, "n_forwards", "seconds", "device"]
        table = build_table([self._named(row) for row in rows], self.layout).select(names)
        if shard.index in self.renewed:
            return change_shard(self.out, shard.index, lambda stored: table, self.folder)
        return put_if_absent(
            child(self.out, part_path(shard.index, self.folder)), table_to_parquet(with_summary(table))
        )

    def _named(self, row: Row) -> Row:
        """Metrics under the names of their columns."""
        return replace(row, metrics={name: row.metrics.get(metric_of(name)) for name in self.layout.metrics})
