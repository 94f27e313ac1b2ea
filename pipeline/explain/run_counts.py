"""What has happened in a run so far, counted from its events; pure, with time handed in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ...statuses import OK
from ...workers.events import (
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
class Tally:
    """Counts of this run; what earlier runs committed is only in `before`."""

    images: int
    """Images in the whole plan."""
    before: int = 0
    """Images that were committed before this run."""
    done: int = 0
    """Images committed in this run."""
    rows: int = 0
    """Their rows."""
    statuses: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    quarantined: int = 0
    given_up: list[int] = field(default_factory=list)
    ready: int = 0
    pending: int = 0
    shards: int = 0
    """Shards committed in this run."""
    first_image: float | None = None
    """Time at which the first worker got to work, so that start-up does not count as slowness."""
    _open: dict[int, int] = field(default_factory=dict)
    """Finished images of each shard in work."""

    def observe(self, event: RunEvent, now: float) -> None:
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
                self.shards += 1
                self.done += event.done.images
                self.rows += event.done.rows
                self.statuses.update(event.done.statuses)
            case ShardGivenUp():
                self._open.pop(event.shard, None)
                self.given_up.append(event.shard)
            case WorkerLost():
                self.deaths += 1
                if event.shard is not None:
                    self._open[event.shard] = 0
            case ImageQuarantined():
                self.quarantined += 1

    @property
    def finished(self) -> int:
        """Images with a row, those of earlier runs and of shards in work included."""
        return min(self.images, self.before + self.done + sum(self._open.values()))

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
