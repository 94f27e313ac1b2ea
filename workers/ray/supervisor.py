"""The one loop of a distributed run: carries events from the actors to the policy, and its orders back. Decides nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ...errors import StorageError, TooManyErrorsError, WorkerStartError
from ..events import (
    EarlierShard,
    ImageQuarantined,
    ImagesAlive,
    Listener,
    RunEvent,
    RunStopping,
    ShardDone,
    ShardFinished,
    ShardGivenUp,
    ShardProgress,
    ShardStarted,
    StartReport,
    WorkerEvent,
    WorkerLost,
    WorkerNote,
    WorkersChanged,
)
from ..interrupts import STOPPING, Interrupts
from ..policy import orders
from ..policy.policy import Limits, Policy
from ..protocols import SampleReader, ShardSink
from ..run_totals import RunTotals
from ..samples import Sample, Shard
from ..worker.engine_protocol import Build
from ..worker.spec import WorkerSpec
from .actor_pool import ActorPool
from .actors import ray_session
from .cluster import Cluster
from .shared_objects import share_objects
from .sink_metrics import MeteredSink

POLL_SECONDS = 1.0
"""Longest wait for an event, so also how late a timeout or Ctrl-C is noticed."""


def supervise(
    shards: Sequence[Shard],
    samples_of: Callable[[Shard], Sequence[Sample]],
    spec: WorkerSpec,
    reader: SampleReader,
    sink: ShardSink,
    *,
    workers: int | Literal["auto"] = "auto",
    gpus_per_worker: float = 1.0,
    cpus_per_worker: float = 1.0,
    address: str | None = None,
    image_timeout: float = 600.0,
    start_timeout: float = 900.0,
    shard_retries: int = 10,
    wait_for_space: bool = False,
    max_error_rate: float = 1.0,
    local_paths: Sequence[str] = (),
    shared_fs: bool = False,
    overlap: bool = True,
    on_event: Listener = lambda event: None,
    build: Build | None = None,
    objects: Mapping[str, Any] | None = None,
) -> RunTotals:
    """Explain the shards on Ray actors.

    Args:
        shards: What is to be done; finished shards of an earlier run are left out by the caller.
        samples_of: The samples of a shard, in order.
        spec: Model and method.
        reader: Bytes of images and masks; travels to the actors.
        sink: Takes finished shards; travels to the actors.
        workers: Number of actors, at least 1; `auto`: as many as the cluster has room for, re-read as it grows.
        gpus_per_worker: GPUs per actor where the cluster has any and `spec.device` is not `cpu`; may be a fraction.
        cpus_per_worker: CPUs per actor.
        address: Of a running cluster; None or `local` starts a private instance.
        image_timeout: Restart a worker after this many seconds without progress.
        start_timeout: Seconds that a worker may take to build its model, waiting for room in the cluster not counted.
        shard_retries: Deaths and failures of a shard, since its last quarantine, after which it is left undone.
        wait_for_space: Whether storage that is full or down is waited for instead of ending the run.
        max_error_rate: Share of failed images, in [0, 1], above which the run stops; 1 switches this off.
        local_paths: Paths that exist on one machine only, as far as anyone can tell; refused on more than one node.
        shared_fs: The user says that `local_paths` are the same everywhere.
        overlap: Whether a worker may begin a shard while it completes the one before; at most two are then redone after a death.
        on_event: Told how the run goes, from this thread.
        build: Makes the engine in the actor; None for the engine of the spec's method. Must be picklable.
        objects: By name, what `object:NAME` means in model and data; sent to every worker.

    Returns:
        The totals; shards left undone are named in it. Ctrl-C once finishes the shards in work, twice stops at once; both return.

    Raises:
        UsageError: When local paths meet several nodes, or the device asked for does not exist.
        WorkerStartError: When workers cannot start, with the cause.
        TooManyErrorsError: When the circuit breaker opens.
        StorageError: When the storage is gone.
    """
    if not shards:
        return RunTotals()
    cpus = min(workers, len(shards)) * cpus_per_worker if workers != "auto" else 0
    with ray_session(address or "local", cpus=cpus), Interrupts() as interrupts:
        cluster = Cluster(workers, gpus=gpus_per_worker, cpus=cpus_per_worker, device=spec.device)
        if not shared_fs:
            cluster.refuse_several_nodes(local_paths)
        spec = replace(spec, device="auto" if cluster.gpus and spec.device == "auto" else cluster.device)
        spec = replace(spec, max_error_rate=max_error_rate, decode_threads=cluster.decode_threads)
        if objects:
            build = share_objects(objects, build)
        pool = ActorPool((spec, reader, MeteredSink(sink), build), gpus=cluster.gpus, cpus=cpus_per_worker)
        limits = Limits(
            image_timeout=image_timeout, start_timeout=start_timeout, shard_retries=shard_retries, max_error_rate=max_error_rate,
            wait_for_space=wait_for_space, overlap=overlap,
        )  # fmt: skip
        run = _Run(shards, samples_of, pool, Policy(shards, limits), on_event)
        try:
            while not run.policy.ended:
                if not shared_fs:
                    cluster.refuse_several_nodes(local_paths)
                run.set_capacity(cluster.capacity())
                run.interrupted(interrupts.count)
                run.turn(POLL_SECONDS)
        finally:
            pool.close()
        return run.close()


class _Run:
    """State between two turns of the loop that is not the policy's: totals, and what the listener was told."""

    def __init__(
        self,
        shards: Sequence[Shard],
        samples_of: Callable[[Shard], Sequence[Sample]],
        pool: ActorPool,
        policy: Policy,
        on_event: Listener,
    ):
        self.policy = policy
        self.totals = RunTotals()
        self._shards = {shard.index: shard for shard in shards}
        self._samples_of = samples_of
        self._pool = pool
        self._on_event = on_event
        self._told_workers = (-1, -1)
        self._presses = 0
        self._noted: set[str] = set()
        self._abort: orders.Abort | None = None

    def set_capacity(self, workers: int) -> None:
        """Tell the policy how many workers the cluster has room for."""
        self._carry_out(self.policy.set_capacity(workers, time.monotonic()))

    def turn(self, timeout: float) -> None:
        """Wait for events, pass them on, let time pass."""
        for worker, event in self._pool.events(timeout):
            self._take_in(worker, event)
        self._carry_out(self.policy.tick(time.monotonic()))
        state = self.policy.ready, self.policy.pending
        if state != self._told_workers:
            self._told_workers = state
            self._tell(WorkersChanged(*state))

    def interrupted(self, presses: int) -> None:
        """React to Ctrl-C: the first finishes what is in work, the second ends the loop."""
        if presses and not self._presses:
            self.totals.interrupted = True
            self._tell(RunStopping(STOPPING))
            self._carry_out(self.policy.stop(time.monotonic()))
        if presses > 1 and not self.policy.ended:
            self._carry_out(self.policy.cut_short("stopped at once by a second interrupt"))
        self._presses = presses

    def close(self) -> RunTotals:
        """The totals.

        Raises:
            WorkerStartError: When the policy gave up starting workers.
            TooManyErrorsError: When the circuit breaker opened.
            StorageError: When the storage is gone.
        """
        self.totals.undone.sort()
        if self._abort:
            kinds = {"start": WorkerStartError, "too_many_errors": TooManyErrorsError, "storage": StorageError}
            raise kinds[self._abort.cause](self._abort.reason)
        return self.totals

    def _tell(self, event: RunEvent) -> None:
        self.totals.observe(event)
        self._on_event(event)

    def _take_in(self, worker: int, event: WorkerEvent) -> None:
        """Tell the listener what it wants to know, then the policy."""
        earlier = event.shard if isinstance(event, EarlierShard) else None
        shard = self.policy.in_work(worker, earlier)
        match event.event if isinstance(event, EarlierShard) else event:
            case StartReport(error=None, notes=notes):
                self._note(notes)
            case StartReport():
                self._pool.kill(worker)
            case ImagesAlive(finished=finished) if shard is not None:
                self._tell(ShardProgress(shard, worker, finished))
            case ShardDone() as done if shard is not None:
                self._tell(ShardFinished(shard, worker, done))
            case _:
                pass
        self._carry_out(self.policy.handle(worker, event, time.monotonic()))

    def _carry_out(self, decided: Sequence[orders.Order]) -> None:
        for order in decided:
            match order:
                case orders.Spawn():
                    self._pool.spawn(order.worker)
                case orders.Dispatch():
                    shard = self._shards[order.shard]
                    samples = self._samples_of(shard)
                    self._tell(ShardStarted(order.shard, order.worker, order.careful))
                    self._pool.dispatch(order.worker, shard, samples, order.quarantine, order.careful, order.leave_open)
                case orders.Complete():
                    self._pool.complete(order.worker)
                case orders.Kill():
                    self._pool.kill_hard(order.worker)
                case orders.Lost():
                    alive = self._ids(order.shard, order.alive) + self._ids(order.earlier, order.earlier_alive)
                    self._tell(WorkerLost(order.worker, order.cause, order.text, order.shard, alive, order.earlier))
                case orders.Quarantine():
                    [sample] = self._ids(order.shard, (order.image,))
                    self._tell(ImageQuarantined(order.shard, sample))
                case ShardGivenUp():
                    self._tell(order)
                case orders.Told():
                    self._note((order.text,))
                case orders.Abort():
                    self._abort = order
                case orders.Finish():
                    pass

    def _note(self, notes: Sequence[str]) -> None:
        for text in notes:
            if text not in self._noted:
                self._noted.add(text)
                self._tell(WorkerNote(text))

    def _ids(self, shard: int | None, positions: Sequence[int]) -> tuple[str, ...]:
        samples = self._samples_of(self._shards[shard]) if positions and shard is not None else ()
        return tuple(samples[position].id for position in positions)
