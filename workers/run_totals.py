"""How a run went, added up from its events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .events import ShardDone


@dataclass
class RunOutcome:
    """Totals over the shards that this run committed, or found committed by another driver."""

    done: list[int] = field(default_factory=list)
    """Indices of the shards, in the order of completion."""
    undone: list[tuple[int, str]] = field(default_factory=list)
    """Shards given up or not begun, with the reason; not empty means a non-zero exit code."""
    already_done_by_others: int = 0
    """Shards that a second driver, or a worker that was thought dead, had committed first."""
    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    forwards: int = 0
    worker_seconds: float = 0.0
    """Time spent on the shards, added over workers."""
    metric_sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Sum and count of every metric."""
    deaths: int = 0
    """Workers that died or were killed; failed starts not counted."""
    failed_starts: int = 0
    quarantined: list[str] = field(default_factory=list)
    """Ids of the samples."""
    interrupted: bool = False
    """The user asked to stop; the same command resumes."""

    def add(self, shard: int, done: ShardDone) -> None:
        """Count a committed shard."""
        self.done.append(shard)
        self.already_done_by_others += not done.first
        self.rows += done.rows
        self.statuses.update(done.statuses)
        self.forwards += done.forwards
        self.worker_seconds += done.seconds
        for name, (total, count) in done.metric_sums.items():
            before, number = self.metric_sums.get(name, (0.0, 0))
            self.metric_sums[name] = before + total, number + count
