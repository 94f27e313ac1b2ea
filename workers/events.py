"""What a worker tells the driver while it works on a shard; plain data that survives pickling."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ImagesAlive:
    """Sent *before* an image is touched: breadcrumb, heartbeat and progress in one."""

    alive: tuple[int, ...]
    """Positions in the shard (0-based) of all images in flight, the new one last."""
    finished: int
    """Images of the shard whose row is complete."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Sent before the commit: a death from here on blames no image."""


@dataclass(frozen=True, slots=True)
class ShardDone:
    """The shard is committed, by this worker or by one that was first."""

    rows: int
    first: bool
    """False if another writer had committed the shard before."""
    statuses: dict[str, int] = field(default_factory=dict)
    forwards: int = 0
    seconds: float = 0.0
    metric_sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Sum and count of every metric over the rows that have it."""


WorkerEvent = ImagesAlive | Writing | ShardDone
