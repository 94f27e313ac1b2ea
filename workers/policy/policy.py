"""Every decision of a run: retry, quarantine, spawn, kill, give up. Pure: takes events and the time, returns orders.

Knows neither Ray nor the clock. `supervisor.py` carries events and orders between it and the actors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ...statuses import QUARANTINED
from ..events import (
    EarlierShard,
    ImagesAlive,
    ShardDone,
    ShardFailed,
    ShardGivenUp,
    ShardOpen,
    StartReport,
    WorkerDied,
    WorkerEvent,
    WorkerPlaced,
    Writing,
)
from ..samples import Shard
from .circuit_breaker import Breaker, count_failures
from .orders import Abort, Complete, Dispatch, Finish, Kill, Order, Quarantine, Spawn, Told
from .shards_held import HeldShard, ShardTask, WorkerState, lost_order
from .storage_outage import StorageOutage


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
    wait_for_space: bool = False
    """Whether storage that is full or down is waited for instead of ending the run."""
    overlap: bool = False
    """Whether a worker may begin a shard while it completes the one before: a death then costs two."""
    backoff: float = 0.5
    backoff_most: float = 30.0


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
        self._queue = deque(ShardTask(shard) for shard in shards)
        self._workers: dict[int, WorkerState] = {}
        self._spawned = 0
        self._capacity = 0
        self._stopping = False
        self._failed_starts = 0
        self._lost_starts = 0
        self._deaths_in_row = 0
        self._spawn_not_before = 0.0
        self._breaker = Breaker(limits.max_error_rate)
        self._storage = StorageOutage(wait=limits.wait_for_space)

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
        """Shard by worker; the latest of each."""
        return {name: worker.held[-1].task.shard.index for name, worker in self._workers.items() if worker.held}

    def shard_of(self, worker: int) -> int | None:
        """The shard that the worker was given last."""
        return self.in_work(worker, None)

    def in_work(self, worker: int, shard: int | None) -> int | None:
        """The shard, where the worker has it; the latest by default."""
        state = self._workers.get(worker)
        held = None if state is None else state.latest(shard)
        return None if held is None else held.task.shard.index

    def set_capacity(self, workers: int, now: float) -> list[Order]:
        """The cluster has room for so many workers now."""
        self._capacity = workers
        return [] if self.ended else self._settle([], now)

    def stop(self, now: float) -> list[Order]:
        """The user wants no new shards started."""
        self._stopping = True
        return [] if self.ended else self._settle([], now)

    def handle(self, worker: int, event: WorkerEvent, now: float) -> list[Order]:
        """Take in what a worker reports. Events of workers that are written off change nothing."""
        if self.ended:
            return []
        orders = self._react(worker, event, now)
        told = event.event if isinstance(event, EarlierShard) else event
        if isinstance(told, ImagesAlive | Writing):
            return orders  # one per image: looking through all workers each time would be the driver's limit
        return self._settle(orders, now)

    def tick(self, now: float) -> list[Order]:
        """Let time pass: watchdog, and retries whose backoff is over. To be called about once a second."""
        if self.ended:
            return []
        orders: list[Order] = []
        for name, worker in list(self._workers.items()):
            patience = self._patience(worker)
            if now - worker.heard > patience:
                text = f"no progress for {patience:g} s" if worker.ready else f"no model after {patience:g} s"
                cause = "timeout" if worker.ready else "start"
                orders += [Kill(name, text), *self._lose(name, WorkerDied("crash", text), now, cause=cause)]
        return self._settle(orders, now)

    def _patience(self, worker: WorkerState) -> float:
        """Seconds that this worker may be silent."""
        if worker.placed and not worker.ready:
            return self.limits.start_timeout
        if worker.idle:
            return float("inf")
        writing = any(held.writing for held in worker.held)
        return max(self.limits.image_timeout, self.limits.write_timeout if writing else 0.0)

    def cut_short(self, reason: str) -> list[Order]:
        """End now; what is in flight stays undone."""
        return [] if self.ended else [*self._end(reason), Finish()]

    def _react(self, name: int, event: WorkerEvent, now: float) -> list[Order]:
        worker = self._workers.get(name)
        if worker is None:
            return []
        worker.heard = now
        match event:
            case WorkerPlaced():
                worker.placed = True
            case StartReport(error=None):
                worker.ready, self._failed_starts, self._lost_starts = True, 0, 0
            case StartReport() if not worker.ready:
                return self._lose(name, WorkerDied("crash", str(event.error)), now, cause="start")
            case WorkerDied():
                return self._lose(name, event, now, cause=event.kind)
            case ShardOpen():
                worker.idle = True
            case EarlierShard():
                return self._hear(name, worker, worker.latest(event.shard), event.event, now)
            case ImagesAlive() | Writing() | ShardDone() | ShardFailed():
                return self._hear(name, worker, worker.latest(), event, now)
            case _:
                pass
        return []

    def _hear(
        self,
        name: int,
        worker: WorkerState,
        held: HeldShard | None,
        event: ImagesAlive | Writing | ShardDone | ShardFailed,
        now: float,
    ) -> list[Order]:
        """Take in what happened to a shard that the worker has."""
        match event:
            case ShardFailed(kind="too_many_errors"):
                return [Abort("too_many_errors", event.text)]
            case _ if held is None:
                pass
            case ImagesAlive():
                held.alive, held.writing = event.alive, False
            case Writing():
                held.alive, held.writing = (), True
            case ShardDone():
                return self._complete(self._release(worker, held), event)
            case ShardFailed(kind="storage"):
                return self._put_again(name, self._release(worker, held), event, now)
            case ShardFailed():
                return self._retry(self._release(worker, held), event.text, now)
        return []

    def _complete(self, task: ShardTask, done: ShardDone) -> list[Order]:
        self.done.append(task.shard.index)
        self._deaths_in_row = 0
        self._storage.over()
        failed = count_failures(done.statuses) - done.statuses.get(QUARANTINED, 0)
        if self._breaker.add(failed, max(done.rows - len(task.quarantine), 0)):
            return [Abort("too_many_errors", self._breaker.reason())]
        return []

    @staticmethod
    def _release(worker: WorkerState, held: HeldShard) -> ShardTask:
        """Take a shard off a worker; it waits for an order when that was the latest."""
        worker.idle = worker.idle or held is worker.held[-1]
        worker.held.remove(held)
        return held.task

    def _lose(self, name: int, death: WorkerDied, now: float, *, cause: str) -> list[Order]:
        worker = self._workers.pop(name)
        for task in self._queue:
            task.holder = None if task.holder == name else task.holder
        orders: list[Order] = [lost_order(name, cause, death.text, worker.held)]
        self._spawn_not_before = now + self._wait(self._deaths_in_row)
        self._deaths_in_row += 1
        if not worker.ready:
            return orders + self._start_failed(death, now)
        for held in reversed(worker.held):  # so that the older one comes to stand before the other
            if death.kind == "infrastructure":
                orders += self._requeue_unblamed(held.task, death.text)
            else:
                orders += self._blame(held.task, held.alive, death.text)
        return orders

    def _start_failed(self, death: WorkerDied, now: float) -> list[Order]:
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

    def _requeue_unblamed(self, task: ShardTask, text: str) -> list[Order]:
        task.infrastructure += 1
        if task.infrastructure > self.limits.infrastructure_retries:
            return self._give_up(task, f"lost {task.infrastructure} times with its node: {text}")
        self._queue.appendleft(task)
        return []

    def _blame(self, task: ShardTask, alive: tuple[int, ...], text: str) -> list[Order]:
        task.careful = True
        guilty = task.blame.death(alive)
        if not guilty:
            return self._count_trouble(task, text)
        task.quarantine |= set(guilty)
        task.troubles = self._deaths_in_row = 0
        self._queue.appendleft(task)
        orders: list[Order] = [Quarantine(task.shard.index, image) for image in guilty]
        if self._breaker.add(len(guilty), len(guilty)):
            orders.append(Abort("too_many_errors", self._breaker.reason()))
        return orders

    def _retry(self, task: ShardTask, text: str, now: float) -> list[Order]:
        task.not_before = now + self._wait(task.troubles)
        return self._count_trouble(task, text)

    def _put_again(self, name: int, task: ShardTask, event: ShardFailed, now: float) -> list[Order]:
        """Only the put is tried again, by the worker that has the rows; or the storage is gone for everybody."""
        if self._storage.failed(task.shard.index, permanent=event.permanent):
            self._queue.appendleft(task)
            return [Abort("storage", self._storage.reason(event.text))]
        task.holder, task.not_before = name, now + self._storage.pause
        self._queue.appendleft(task)
        note = self._storage.note(event.text)
        return [Told(note)] if note else []

    def _count_trouble(self, task: ShardTask, text: str) -> list[Order]:
        task.troubles += 1
        if task.troubles > self.limits.shard_retries:
            return self._give_up(task, f"{task.troubles} attempts failed, the last: {text}")
        self._queue.appendleft(task)
        return []

    def _give_up(self, task: ShardTask, reason: str) -> list[Order]:
        self.undone[task.shard.index] = reason
        return [ShardGivenUp(task.shard.index, reason)]

    def _wait(self, before: int) -> float:
        return min(self.limits.backoff * 2 ** min(before, 16), self.limits.backoff_most)

    def _settle(self, orders: list[Order], now: float) -> list[Order]:
        """Hand out work, start workers, or end."""
        abort = next((order for order in orders if isinstance(order, Abort)), None)
        if abort:
            return orders + self._end(f"not done when the run was stopped: {abort.reason}")
        orders += self._dispatch(now)
        busy = bool(self.in_flight)
        if not busy and (self._stopping or not self._queue):
            return orders + self._end("not begun when the run was interrupted") + [Finish()]
        if not self._stopping:
            orders += self._spawn(now)
        return orders

    def _end(self, reason: str) -> list[Order]:
        self.ended = True
        left = [held.task for worker in self._workers.values() for held in worker.held] + list(self._queue)
        for worker in self._workers.values():
            worker.held.clear()
        self._queue.clear()
        return [order for task in left for order in self._give_up(task, reason)]

    def _dispatch(self, now: float) -> list[Order]:
        """Give idle workers a shard each; those that get none complete what they left open."""
        orders: list[Order] = []
        idle = [(name, worker) for name, worker in self._workers.items() if worker.ready and worker.idle]
        for name, worker in idle:
            task = None if self._stopping else self._next_for(name, now)
            if worker.held and (task is None or task.careful or task.holder is not None):
                worker.idle, worker.heard = False, now
                orders.append(Complete(name))
            elif task is not None:
                leave_open = self._may_leave_open(task)
                self._queue.remove(task)
                worker.held.append(HeldShard(task))
                worker.idle, worker.heard, task.holder = False, now, None
                orders.append(Dispatch(name, task.shard.index, frozenset(task.quarantine), task.careful, leave_open))
        return orders

    def _next_for(self, name: int, now: float) -> ShardTask | None:
        """The shard that the worker is to have now: one whose rows it keeps, before any other."""
        kept = next((task for task in self._queue if task.holder == name), None)
        free = (task for task in self._queue if task.not_before <= now and task.holder is None)
        task = next(free, None) if kept is None else kept
        return None if task is None or task.not_before > now else task

    def _may_leave_open(self, task: ShardTask) -> bool:
        """Whether another shard can follow beside its last images. A careful one never shares its worker."""
        if not self.limits.overlap or task.careful or task.holder is not None:
            return False
        return any(other is not task and other.holder is None and not other.careful for other in self._queue)

    def _spawn(self, now: float) -> list[Order]:
        if now < self._spawn_not_before:
            return []
        orders: list[Order] = []
        wanted = min(self._capacity, len(self._queue) + len(self.in_flight))
        while len(self._workers) < wanted:
            self._workers[self._spawned] = WorkerState(heard=now)
            orders.append(Spawn(self._spawned))
            self._spawned += 1
        return orders
