"""What the policy orders, and what it has decided. Workers go by numbers that the policy gives out; shards by their index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..events import ShardGivenUp


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
    leave_open: bool = False
    """Another shard is to follow: its first images are to share batches with the last of this one."""


@dataclass(frozen=True, slots=True)
class Complete:
    """Have the worker complete the shard that it left open: none follows."""

    worker: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the worker's process; the policy has already written it off."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Decided: the worker is written off, with these images (positions) of this shard in flight."""

    worker: int
    cause: str
    """`crash`, `infrastructure`, `timeout` or `start`."""
    text: str
    shard: int | None
    alive: tuple[int, ...]
    earlier: int | None = None
    """The shard that it was completing beside `shard`, with the images in flight of that."""
    earlier_alive: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Decided: the image becomes an error row of its shard."""

    shard: int
    image: int


@dataclass(frozen=True, slots=True)
class Told:
    """Decided: the user should know this."""

    text: str


@dataclass(frozen=True, slots=True)
class Abort:
    """End the run at once: kill everything, commit nothing more."""

    cause: Literal["start", "too_many_errors", "storage"]
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Every shard is committed or given up, or the run was stopped and nothing is in flight."""


Order = Spawn | Dispatch | Complete | Kill | Lost | Quarantine | ShardGivenUp | Told | Abort | Finish
