"""What a worker did, as metrics of Ray: counters and a histogram that a Prometheus beside the cluster can collect.

Counted where a shard is committed, so that work which was lost with its worker does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..policy.circuit_breaker import count_failures
from ..protocols import RowEncoder, ShardSink
from ..samples import Row, Shard
from ..worker.image_rows import count_statuses

SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
"""Upper bounds of the histogram's classes: a tiny network on a GPU to a large one on a CPU."""


@dataclass
class MeteredSink:
    """Hands shards on to `sink` and counts their rows; picklable, because its metrics are made where they are first used."""

    sink: ShardSink
    _meters: Any = field(default=None, init=False, repr=False)

    def encode(self, row: Row) -> None:
        """See `RowEncoder.encode`."""
        if isinstance(self.sink, RowEncoder):
            self.sink.encode(row)

    def commit(self, shard: Shard, rows: Sequence[Row]) -> bool:
        """See `ShardSink.commit`."""
        first = self.sink.commit(shard, rows)
        if self._meters is None:
            self._meters = Meters()
        self._meters.count(rows, first)
        return first


class Meters:
    """The metrics of this process. A shard that another writer had committed first adds its forwards but no images."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Histogram

        self.images = Counter(
            "heatlas_images", description="Images with a committed row, by status", tag_keys=("status",)
        )
        self.errors = Counter("heatlas_errors", description="Images among them that failed")
        self.forwards = Counter("heatlas_forwards", description="Forward passes, padding not counted")
        self.seconds = Histogram(
            "heatlas_image_seconds", description="Worker's wall time on an image", boundaries=SECONDS
        )

    def count(self, rows: Sequence[Row], first: bool) -> None:
        add(self.forwards, sum(row.n_forwards for row in rows))
        for row in rows:
            if row.n_forwards:
                self.seconds.observe(row.seconds)
        if not first:
            return
        statuses = count_statuses(rows)
        for status, count in statuses.items():
            add(self.images, count, {"status": status})
        add(self.errors, count_failures(statuses))


def add(counter: Any, amount: int, tags: dict[str, str] | None = None) -> None:
    """Ray's counters refuse an increase by 0."""
    if amount:
        counter.inc(amount, tags=tags)
