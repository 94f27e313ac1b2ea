"""Every decision of a run: retry, quarantine, spawn, kill, give up. Pure: fed with signals and the time, answers with actions.

Knows neither Ray nor the clock. `supervisor.py` carries signals and actions between it and the world.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..samples import Shard
from .circuit_breaker import Breaker
from .orders import (
    Abort,
    Action,
    Alive,
    BreakerOpen,
    Capacity,
    Died,
    Dispatch,
    Done,
    Failed,
    Finish,
    GiveUp,
    Kill,
    Lost,
    Placed,
    Quarantine,
    Ready,
    Signal,
    Spawn,
    StartFailed,
    Stop,
    WriteBegun,
)  # fmt: skip
from .quarantine import Blame


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When patience ends; times in seconds.

    `shard_retries` counts what went wrong with a shard since its last quarantine, so that two killers in one shard are both
    found. Lost nodes count apart, because they say nothing about the shard, but without end they may not come either.
    """

    image_timeout: float = 600.0
    start_timeout: float = 900.0
    """For building the model, weights over a slow network included; waiting for room in the cluster does not count."""
    write_timeout: float = 600.0
    """For the commit, where storage retries with backoff; never shorter than `image_timeout`."""
    shard_retries: int = 3
    infrastructure_retries: int = 20
    failed_starts: int = 3
    max_error_rate: float = 1.0
    backoff: float = 0.5
    backoff_most: float = 30.0


@dataclass(slots=True, eq=False)
class _Task:
    """What happened to one shard so far."""

    shard: Shard
    blame: Blame = field(default_factory=Blame)
    quarantine: set[int] = field(default_factory=set)
    careful: bool = False
    troubles: int = 0
    infrastructure: int = 0
    not_before: float = 0.0


@dataclass(slots=True, eq=False)
class _Worker:
    placed: bool = False
    ready: bool = False
    task: _Task | None = None
    alive: tuple[int, ...] = ()
    writing: bool = False
    heard: float = 0.0


class Policy:
    """The state of a run.

    Args:
        shards: To be done, in the order in which they are handed out.
        limits: When patience ends.
    """

    def __init__(self, shards: Sequence[Shard], limits: Limits):
        self.limits = limits
        self.done: list[int] = []
        self.undone: dict[int, str] = {}
        """Shards given up, with the reason."""
        self.ended = False
        self._queue = deque(_Task(shard) for shard in shards)
        self._workers: dict[int, _Worker] = {}
        self._spawned = 0
        self._capacity = 0
        self._stopping = False
        self._failed_starts = 0
        self._lost_starts = 0
        self._deaths_in_row = 0
        self._spawn_not_before = 0.0
        self._breaker = Breaker(limits.max_error_rate)

    @property
    def ready(self) -> int:
        """Workers that have their model."""
        return sum(worker.ready for worker in self._workers.values())

    @property
    def pending(self) -> int:
        """Workers that are starting, or wait for the cluster to place them."""
        return len(self._workers) - self.ready

    @property
    def in_flight(self) -> dict[int, int]:
        """Shard by worker."""
        return {name: one.task.shard.index for name, one in self._workers.items() if one.task}

    def shard_of(self, worker: int) -> int | None:
        """The shard that the worker has."""
        one = self._workers.get(worker)
        return one.task.shard.index if one and one.task else None

    def handle(self, signal: Signal, now: float) -> list[Action]:
        """Take in what happened. Signals of workers that are written off change nothing."""
        if self.ended:
            return []
        actions = self._react(signal, now)
        if isinstance(
            signal, Alive | WriteBegun
        ):  # one per image: looking through all workers each time would be the driver's limit
            return actions
        return self._settle(actions, now)

    def tick(self, now: float) -> list[Action]:
        """Let time pass: watchdog, and retries whose backoff is over. To be called about once a second."""
        if self.ended:
            return []
        actions: list[Action] = []
        for name, worker in list(self._workers.items()):
            patience = self._patience(worker)
            if now - worker.heard > patience:
                text = f"no sign of life for {patience:g} s" if worker.ready else f"no model after {patience:g} s"
                cause = "timeout" if worker.ready else "start"
                actions += [Kill(name, text), *self._lose(name, Died(name, "crash", text), now, cause=cause)]
        return self._settle(actions, now)

    def _patience(self, worker: _Worker) -> float:
        """Seconds that this worker may be silent."""
        if worker.placed and not worker.ready:
            return self.limits.start_timeout
        if worker.task is None:
            return float("inf")
        return max(self.limits.image_timeout, self.limits.write_timeout if worker.writing else 0.0)

    def cut_short(self, reason: str) -> list[Action]:
        """End now; what is in flight stays undone."""
        return [] if self.ended else [*self._end(reason), Finish()]

    def _react(self, signal: Signal, now: float) -> list[Action]:
        if isinstance(signal, Capacity):
            self._capacity = signal.workers
            return []
        if isinstance(signal, Stop):
            self._stopping = True
            return []
        worker = self._workers.get(signal.worker)
        if worker is None:
            return []
        worker.heard = now
        match signal:
            case Placed():
                worker.placed = True
            case Ready():
                worker.ready, self._failed_starts, self._lost_starts = True, 0, 0
            case StartFailed() if not worker.ready:
                return self._lose(signal.worker, Died(signal.worker, "crash", signal.text), now, cause="start")
            case Alive() if worker.task:
                worker.alive, worker.writing = signal.images, False
            case WriteBegun() if worker.task:
                worker.alive, worker.writing = (), True
            case Done() if worker.task:
                return self._complete(worker, worker.task, signal)
            case Died():
                return self._lose(signal.worker, signal, now, cause=signal.kind)
            case Failed() if worker.task:
                return self._retry(self._release(worker), signal.text, now)
            case BreakerOpen():
                return [Abort("too_many_errors", signal.text)]
            case _:
                pass
        return []

    def _complete(self, worker: _Worker, task: _Task, signal: Done) -> list[Action]:
        self._release(worker)
        self.done.append(task.shard.index)
        self._deaths_in_row = 0
        counted = signal.rows - len(task.quarantine)
        if self._breaker.add(signal.failed, max(counted, 0)):
            return [Abort("too_many_errors", self._breaker.reason())]
        return []

    def _release(self, worker: _Worker) -> _Task:
        task, worker.task, worker.alive, worker.writing = worker.task, None, (), False
        if task is None:
            raise RuntimeError("the worker has no shard")
        return task

    def _lose(self, name: int, death: Died, now: float, *, cause: str) -> list[Action]:
        worker = self._workers.pop(name)
        shard = worker.task.shard.index if worker.task else None
        actions: list[Action] = [Lost(name, cause, death.text, shard, worker.alive)]
        self._spawn_not_before = now + self._wait(self._deaths_in_row)
        self._deaths_in_row += 1
        if not worker.ready:
            return actions + self._start_failed(death, now)
        if worker.task is None:
            return actions
        if death.kind == "infrastructure":
            return actions + self._requeue_unblamed(worker.task, death.text)
        return actions + self._blame(worker.task, worker.alive, death.text)

    def _start_failed(self, death: Died, now: float) -> list[Action]:
        infrastructure = death.kind == "infrastructure"
        self._lost_starts += infrastructure
        self._failed_starts += not infrastructure
        limit = self.limits.failed_starts
        if self._failed_starts < limit and self._lost_starts < self.limits.infrastructure_retries:
            return []
        if self.ready:
            # The others work: a bad node must not end the run, but it need not be tried often either.
            self._spawn_not_before = now + self.limits.backoff_most
            return []
        return [
            Abort(
                "start", f"{max(self._failed_starts, self._lost_starts)} workers in a row could not start: {death.text}"
            )
        ]

    def _requeue_unblamed(self, task: _Task, text: str) -> list[Action]:
        task.infrastructure += 1
        if task.infrastructure > self.limits.infrastructure_retries:
            return self._give_up(task, f"lost {task.infrastructure} times with its node: {text}")
        self._queue.appendleft(task)
        return []

    def _blame(self, task: _Task, alive: tuple[int, ...], text: str) -> list[Action]:
        task.careful = True
        guilty = task.blame.death(alive)
        if not guilty:
            return self._count_trouble(task, text)
        task.quarantine |= set(guilty)
        task.troubles = self._deaths_in_row = 0
        self._queue.appendleft(task)
        actions: list[Action] = [Quarantine(task.shard.index, image) for image in guilty]
        if self._breaker.add(len(guilty), len(guilty)):
            actions.append(Abort("too_many_errors", self._breaker.reason()))
        return actions

    def _retry(self, task: _Task, text: str, now: float) -> list[Action]:
        task.not_before = now + self._wait(task.troubles)
        return self._count_trouble(task, text)

    def _count_trouble(self, task: _Task, text: str) -> list[Action]:
        task.troubles += 1
        if task.troubles > self.limits.shard_retries:
            return self._give_up(task, f"{task.troubles} attempts failed, the last: {text}")
        self._queue.appendleft(task)
        return []

    def _give_up(self, task: _Task, reason: str) -> list[Action]:
        self.undone[task.shard.index] = reason
        return [GiveUp(task.shard.index, reason)]

    def _wait(self, before: int) -> float:
        return min(self.limits.backoff * 2 ** min(before, 16), self.limits.backoff_most)

    def _settle(self, actions: list[Action], now: float) -> list[Action]:
        """Hand out work, start workers, or end."""
        abort = next((action for action in actions if isinstance(action, Abort)), None)
        if abort:
            return actions + self._end(f"not done when the run was stopped: {abort.reason}")
        if not self._stopping:
            actions += self._dispatch(now)
        busy = bool(self.in_flight)
        if not busy and (self._stopping or not self._queue):
            return actions + self._end("not begun when the run was interrupted") + [Finish()]
        if not self._stopping:
            actions += self._spawn(now)
        return actions

    def _end(self, reason: str) -> list[Action]:
        self.ended = True
        left = [worker.task for worker in self._workers.values() if worker.task] + list(self._queue)
        for worker in self._workers.values():
            worker.task = None
        self._queue.clear()
        return [action for task in left for action in self._give_up(task, reason)]

    def _dispatch(self, now: float) -> list[Action]:
        actions: list[Action] = []
        idle = [(name, worker) for name, worker in self._workers.items() if worker.ready and not worker.task]
        for name, worker in idle:
            task = next((task for task in self._queue if task.not_before <= now), None)
            if task is None:
                break
            self._queue.remove(task)
            worker.task, worker.heard = task, now
            actions.append(Dispatch(name, task.shard.index, frozenset(task.quarantine), task.careful))
        return actions

    def _spawn(self, now: float) -> list[Action]:
        if now < self._spawn_not_before:
            return []
        actions: list[Action] = []
        wanted = min(self._capacity, len(self._queue) + len(self.in_flight))
        while len(self._workers) < wanted:
            self._workers[self._spawned] = _Worker(heard=now)
            actions.append(Spawn(self._spawned))
            self._spawned += 1
        return actions
