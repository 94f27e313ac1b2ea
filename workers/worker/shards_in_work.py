"""A shard of a worker on its way from the first image to its commit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from ...engine.time_spent import WorkMeter, measured_by
from ..protocols import ShardSink
from ..samples import Row, Shard
from .shard_attempt import ShardAttempt


@dataclass(frozen=True)
class Computed:
    """All rows of a shard, with what they took."""

    rows: list[Row]
    images: int
    """Samples of the shard; there may be several rows of each."""
    seconds: float
    """Since the shard was begun, or the shard before was computed if that was later."""
    stages: dict[str, float]
    padded: int


@dataclass(frozen=True)
class CommittedRows:
    """A commit that went well."""

    first: bool
    """Whether nobody had stored the shard before."""
    stages: dict[str, float]


@dataclass(eq=False)
class OpenShard:
    """A shard that a worker has."""

    shard: Shard
    attempt: ShardAttempt | None = None
    """None where the rows are kept from an attempt before."""
    begun: float = field(default_factory=time.perf_counter)
    computed: Computed | None = None
    storing: Future[CommittedRows] | None = None
    """The commit in its thread, beside the shard that follows."""
    over: bool = False
    """Whether the driver was told how it ended."""
    told: tuple[int, ...] | None = None
    """Images in flight as the driver knows them."""

    def end(self) -> None:
        """The driver is told; nothing of the attempt stays in memory."""
        self.over = True
        for attempt in () if self.attempt is None else self.attempt.sharing:
            attempt.sharing = tuple(other for other in attempt.sharing if other is not self.attempt)
        self.attempt = None


def store_rows(
    sink: ShardSink, shard: Shard, rows: Sequence[Row], attempt: ShardAttempt | None, *, beside: bool
) -> CommittedRows:
    """Commit the rows when all are encoded.

    Args:
        sink: Takes them.
        shard: Theirs.
        rows: In order.
        attempt: That made them.
        beside: Whether the device works meanwhile; else the time is charged to its own stages.

    Raises:
        StorageError: When storage fails, see `ShardSink.commit`.
    """
    meter = WorkMeter()
    begun = time.perf_counter()
    with meter.at("commit"), measured_by(meter):
        if attempt is not None:
            with meter.at("encoding"):
                attempt.encoded()
        first = sink.commit(shard, rows)
    stages, _ = meter.take()
    return CommittedRows(first, {"storing": time.perf_counter() - begun} if beside else stages)
