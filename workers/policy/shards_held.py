"""What the policy knows of a shard and of a worker with its shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..samples import Shard
from .orders import Lost
from .quarantine import Blame


@dataclass(slots=True, eq=False)
class ShardTask:
    """What happened to one shard so far."""

    shard: Shard
    blame: Blame = field(default_factory=Blame)
    quarantine: set[int] = field(default_factory=set)
    careful: bool = False
    troubles: int = 0
    infrastructure: int = 0
    not_before: float = 0.0
    holder: int | None = None
    """Worker that keeps the shard's computed rows, because they could not be put."""


@dataclass(slots=True, eq=False)
class HeldShard:
    """A shard that a worker has."""

    task: ShardTask
    alive: tuple[int, ...] = ()
    writing: bool = False


@dataclass(slots=True, eq=False)
class WorkerState:
    placed: bool = False
    ready: bool = False
    held: list[HeldShard] = field(default_factory=list)
    """Shards, the latest last; two while the first of them is completed beside the second."""
    idle: bool = True
    """Whether it waits for an order, perhaps with a shard left open."""
    heard: float = 0.0

    def latest(self, shard: int | None = None) -> HeldShard | None:
        """What it holds of a shard; of the latest by default."""
        return next((held for held in reversed(self.held) if shard is None or held.task.shard.index == shard), None)


def lost_order(worker: int, cause: str, text: str, held: Sequence[HeldShard]) -> Lost:
    """What became known of a worker that is written off."""
    if not held:
        return Lost(worker, cause, text, None, ())
    latest, earlier = held[-1], held[0] if held[1:] else None
    lost = Lost(worker, cause, text, latest.task.shard.index, latest.alive)
    return lost if earlier is None else replace(lost, earlier=earlier.task.shard.index, earlier_alive=earlier.alive)
