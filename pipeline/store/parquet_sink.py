"""Commits the rows of a shard as one Parquet file: the sink of `heatlas explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...engine.time_spent import stage
from ...statuses import OK
from ...workers.samples import Row, Shard
from ..storage.atomic_write import put_if_absent
from ..storage.location import child
from .parquet_bytes import table_to_parquet
from .part_names import part_path
from .part_origin import PartOrigin, expected_run
from .part_summary import with_summary
from .rows_to_table import build_table, png_bytes
from .run_file import find_run
from .schema import StoreLayout


@dataclass(frozen=True)
class ParquetSink:
    """Commits shards as Parquet files below `out`; picklable, so that it travels into actors."""

    out: str
    layout: StoreLayout
    run: str | None = None
    """Identity of the run that computes the rows; None: that of the directory."""

    def encode(self, row: Row) -> None:
        """See `RowEncoder.encode`: the map's picture."""
        if self.layout.with_png and row.map is not None and row.status == OK:
            row.png = png_bytes(row.map)

    def commit(self, shard: Shard, rows: Sequence[Row]) -> bool:
        """See `ShardSink.commit`."""
        run = self.run or expected_run(find_run(self.out))
        origin = None if run is None else PartOrigin(run, shard.index, "")
        with stage("encoding"):
            data = table_to_parquet(with_summary(build_table(rows, self.layout), origin))
        return put_if_absent(child(self.out, part_path(shard.index)), data)
