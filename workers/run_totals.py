"""Totals of a run, counted from its events; pure, with time handed in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..statuses import OK
from .events import (
    ImageQuarantined,
    RunEvent,
    ShardFinished,
    ShardGivenUp,
    ShardProgress,
    ShardStarted,
    WorkerLost,
    WorkersChanged,
)


@dataclass
class RunTotals:
    """Counts of this run; what earlier runs committed is only in `before`."""

    images: int = 0
    """Images in the whole plan; 0: not known."""
    before: int = 0
    """Images that were committed before this run."""
    done: list[int] = field(default_factory=list)
    """Indices of the shards committed in this run, in the order of completion."""
    undone: list[tuple[int, str]] = field(default_factory=list)
    """Shards given up or not begun, with the reason; not empty means a non-zero exit code."""
    images_done: int = 0
    """Images committed in this run."""
    rows: int = 0
    """Their rows."""
    statuses: Counter[str] = field(default_factory=Counter)
    forwards: int = 0
    padded: int = 0
    """Rows of forwards that held nothing."""
    stages: Counter[str] = field(default_factory=Counter)
    """Seconds of all workers by stage."""
    seconds: float = 0.0
    """Seconds of all workers on committed shards."""
    deaths: int = 0
    """Workers that died or were killed; failed starts not counted."""
    failed_starts: int = 0
    quarantined: list[str] = field(default_factory=list)
    """Ids of the samples."""
    interrupted: bool = False
    """The user asked to stop; the same command resumes."""
    ready: int = 0
    """Workers that have their model."""
    pending: int = 0
    """Workers that are starting."""
    first_image: float | None = None
    """Time at which the first worker got to work, so that start-up does not count as slowness."""
    _open: dict[int, int] = field(default_factory=dict)
    """Finished images of each shard in work."""

    def observe(self, event: RunEvent, now: float = 0.0) -> None:
        """Count one event that happened at `now` (seconds of any steady clock)."""
        match event:
            case WorkersChanged():
                self.ready, self.pending = event.ready, event.pending
            case ShardStarted():
                self.first_image = now if self.first_image is None else self.first_image
                self._open[event.shard] = 0
            case ShardProgress():
                self._open[event.shard] = event.finished
            case ShardFinished():
                self._open.pop(event.shard, None)
                self.done.append(event.shard)
                self.images_done += event.done.images
                self.rows += event.done.rows
                self.statuses.update(event.done.statuses)
                self.forwards += event.done.forwards
                self.padded += event.done.padded
                self.seconds += event.done.seconds
                for stage, seconds in event.done.stages.items():
                    self.stages[stage] += seconds  # pyright: ignore[reportArgumentType]
            case ShardGivenUp():
                self._open.pop(event.shard, None)
                self.undone.append((event.shard, event.reason))
            case WorkerLost():
                self.failed_starts += event.kind == "start"
                self.deaths += event.kind != "start"
                for shard in (event.shard, event.earlier):
                    if shard is not None:
                        self._open[shard] = 0
            case ImageQuarantined():
                self.quarantined.append(event.sample)

    @property
    def finished(self) -> int:
        """Images with a row, those of earlier runs and of shards in work included."""
        return min(self.images, self.before + self.images_done + sum(self._open.values()))

    @property
    def errors(self) -> int:
        """Rows of this run that are not `ok`."""
        return sum(self.statuses.values()) - self.statuses[OK]

    def rate(self, now: float) -> float | None:
        """Images per second of this run since its first image; None before there is anything to tell."""
        done = self.finished - self.before
        if self.first_image is None or done < 1 or now <= self.first_image:
            return None
        return done / (now - self.first_image)

    def seconds_left(self, now: float) -> float | None:
        rate = self.rate(now)
        return None if rate is None else (self.images - self.finished) / rate
