"""What the policy hears and what it orders. Workers go by numbers that the policy gives out; shards by their index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeathKind = Literal["crash", "infrastructure"]
"""`infrastructure`: a lost node or connection, which says nothing about the images."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The cluster has room for so many workers now."""

    workers: int


@dataclass(frozen=True, slots=True)
class Placed:
    """The worker's process runs; from now on it builds its model. Before that it waits for room in the cluster, which may take long."""

    worker: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has its model."""

    worker: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The worker raised while it built its model, and is gone."""

    worker: int
    text: str


@dataclass(frozen=True, slots=True)
class Alive:
    """The images (positions) that the worker has in flight from now on; also its heartbeat."""

    worker: int
    images: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WriteBegun:
    """The worker commits its shard; no image is in flight."""

    worker: int


@dataclass(frozen=True, slots=True)
class Done:
    """The shard is committed. `failed` of its `rows` are failures, quarantined images not counted."""

    worker: int
    failed: int
    rows: int


@dataclass(frozen=True, slots=True)
class Died:
    """The worker's process is gone, during its start too."""

    worker: int
    kind: DeathKind
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The shard raised (storage, a bug); the worker lives on."""

    worker: int
    text: str


@dataclass(frozen=True, slots=True)
class BreakerOpen:
    """The worker refused to commit its shard because too many images failed."""

    worker: int
    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The user wants no new shards started."""


Signal = Capacity | Placed | Ready | StartFailed | Alive | WriteBegun | Done | Died | Failed | BreakerOpen | Stop


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker under this number."""

    worker: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Give the shard to the worker."""

    worker: int
    shard: int
    quarantine: frozenset[int]
    careful: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """End the worker's process; the policy has already written it off."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """News, not an order: the worker is gone, with these images of this shard in flight."""

    worker: int
    cause: str
    """`crash`, `infrastructure`, `timeout` or `start`."""
    text: str
    shard: int | None
    alive: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quarantine:
    """News, not an order: the image will become an error row of its shard."""

    shard: int
    image: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """News, not an order: the shard is left undone."""

    shard: int
    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """End the run at once: kill everything, commit nothing more."""

    cause: Literal["start", "too_many_errors"]
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Every shard is committed or given up, or the run was stopped and nothing is in flight."""


Action = Spawn | Dispatch | Kill | Lost | Quarantine | GiveUp | Abort | Finish
