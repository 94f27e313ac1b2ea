"""Events: what a worker reports to the driver (`WorkerEvent`), and what the driver reports to its listener (`RunEvent`).

Plain data that survives pickling; `event_record` makes JSON of a run event, for the event log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

DeathKind = Literal["crash", "infrastructure"]
"""`infrastructure`: a lost node or connection, which says nothing about the images."""


@dataclass(frozen=True, slots=True)
class WorkerPlaced:
    """The worker's process runs, here; from now on it builds its model. Before that it waits for room in the cluster."""

    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class StartReport:
    """How the start of a worker went; an error as data, because not every exception can be pickled."""

    device: str = ""
    error: str | None = None
    notes: tuple[str, ...] = ()
    """What the user should know of a start that went well."""


@dataclass(frozen=True, slots=True)
class ImagesAlive:
    """Images are in flight from now on; sent *before* an image is touched, so it also names suspects and counts as heartbeat."""

    alive: tuple[int, ...]
    """Positions in the shard (0-based) of all images in flight, the new one last."""
    finished: int
    """Images of the shard whose row is complete."""


@dataclass(frozen=True, slots=True)
class Writing:
    """The commit begins: a death from here on blames no image."""


@dataclass(frozen=True, slots=True)
class ShardDone:
    """The shard is committed, by this worker or by one that was first."""

    rows: int
    images: int
    """Samples of the shard; there may be several rows of each."""
    first: bool
    """False if another writer had committed the shard before."""
    statuses: dict[str, int] = field(default_factory=dict)
    forwards: int = 0
    seconds: float = 0.0
    metric_sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Sum and count of every metric over the rows that have it."""
    batch_size: int = 0
    """Micro-batch at the end of the shard; smaller than the run's after the device ran out of memory. 0: not known."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, see `engine.time_spent.STAGES`; decoding goes on beside the others."""
    padded: int = 0
    """Rows of forwards that held nothing; not among `forwards`."""


@dataclass(frozen=True, slots=True)
class ShardFailed:
    """The shard could not be completed, the worker lives on. An error as data, because not every exception can be pickled."""

    kind: Literal["error", "too_many_errors", "storage"]
    """`storage`: the rows are computed and the worker keeps them, but they cannot be put."""
    text: str
    permanent: bool = False
    """Whether the storage will not take them another time either: it is full, read-only or forbidden."""


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """The worker's process is gone, during its start too."""

    kind: DeathKind
    text: str


@dataclass(frozen=True, slots=True)
class ShardOpen:
    """The last images of the shard are decoded or in flight: the worker can take the next shard beside them, or be asked to complete
    this one."""


@dataclass(frozen=True, slots=True)
class EarlierShard:
    """What happened to the shard that the worker was given before its present one, and that it completes beside it."""

    shard: int
    event: ImagesAlive | Writing | ShardDone | ShardFailed


WorkerEvent = (
    WorkerPlaced | StartReport | ImagesAlive | Writing | ShardOpen | ShardDone | ShardFailed | EarlierShard | WorkerDied
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkersChanged:
    """How many workers have their model, and how many are still starting or waiting for a place."""

    ready: int
    pending: int


@dataclass(frozen=True, slots=True)
class WorkerNote:
    """What the user should know of how workers started; told once, whichever worker it came from."""

    text: str


@dataclass(frozen=True, slots=True)
class ShardStarted:
    """A worker got the shard. `careful`: one image at a time, because a worker died on this shard before."""

    shard: int
    worker: int
    careful: bool


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """`finished` images of the shard have their row; it falls back to 0 when the shard is started again."""

    shard: int
    worker: int
    finished: int


@dataclass(frozen=True, slots=True)
class ShardFinished:
    """The shard is committed."""

    shard: int
    worker: int
    done: ShardDone


@dataclass(frozen=True, slots=True)
class ShardGivenUp:
    """The shard is left undone; the same command tries it again."""

    shard: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died, was killed by the watchdog, or could not start (`shard` None: it had none)."""

    worker: int
    kind: str
    """`crash`, `infrastructure`, `timeout` or `start`."""
    text: str
    shard: int | None
    alive: tuple[str, ...]
    """Ids of the images in flight when it died, of both shards where it had two."""
    earlier: int | None = None
    """The shard that it was completing beside `shard`."""


@dataclass(frozen=True, slots=True)
class ImageQuarantined:
    """The image was alive at three consecutive deaths and becomes an error row."""

    shard: int
    sample: str


@dataclass(frozen=True, slots=True)
class RunStopping:
    """No new shards are started; those in flight are finished."""

    reason: str


RunEvent = (
    WorkersChanged | WorkerNote | ShardStarted | ShardProgress | ShardFinished | ShardGivenUp | WorkerLost | ImageQuarantined | RunStopping
)  # fmt: skip
Listener = Callable[[RunEvent], None]


def event_record(event: RunEvent) -> dict[str, Any]:
    """The event as a JSON-serialisable dict: `{"event": "ShardFinished", "shard": 3, ...}`."""
    return {"event": type(event).__name__, **asdict(event)}
