"""The one loop of a distributed run: carries news from the actors to the policy, and its orders back. Decides nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from ...errors import TooManyErrorsError, WorkerStartError
from ..events import (
    ImageQuarantined,
    ImagesAlive,
    Listener,
    RunStopping,
    ShardDone,
    ShardFailed,
    ShardFinished,
    ShardGivenUp,
    ShardProgress,
    ShardStarted,
    WorkerLost,
    WorkerNote,
    WorkersChanged,
    Writing,
)
from ..interrupts import STOPPING, Interrupts
from ..policy import orders as signals
from ..policy.circuit_breaker import count_failures
from ..policy.policy import Limits, Policy
from ..protocols import SampleReader, ShardSink
from ..run_totals import RunOutcome
from ..samples import Sample, Shard
from ..worker.engine_protocol import Build
from ..worker.shard_worker import Hello, StartReport
from ..worker.spec import WorkerSpec
from .actor_pool import Death, Fleet, News
from .actors import ray_session
from .cluster import Cluster
from .sink_metrics import MeteredSink

POLL_SECONDS = 1.0
"""Longest wait for news, so also how late a timeout or Ctrl-C is noticed."""


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
    max_error_rate: float = 1.0,
    local_paths: Sequence[str] = (),
    shared_fs: bool = False,
    on_event: Listener = lambda event: None,
    build: Build | None = None,
) -> RunOutcome:
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
        image_timeout: Seconds without a sign of life after which a worker is killed.
        start_timeout: Seconds that a worker may take to build its model, waiting for room in the cluster not counted.
        shard_retries: Deaths and failures of a shard, since its last quarantine, after which it is left undone.
        max_error_rate: Share of failed images, in [0, 1], above which the run stops; 1 switches this off.
        local_paths: Paths that exist on one machine only, as far as anyone can tell; refused on more than one node.
        shared_fs: The user says that `local_paths` are the same everywhere.
        on_event: Told how the run goes, from this thread.
        build: Makes the engine in the actor, None for SISE; must be picklable.

    Returns:
        The totals; shards left undone are named in it. Ctrl-C once finishes the shards in work, twice stops at once; both return.

    Raises:
        UsageError: When local paths meet several nodes, or the device asked for does not exist.
        WorkerStartError: When workers cannot start, with the cause.
        TooManyErrorsError: When the circuit breaker opens.
    """
    if not shards:
        return RunOutcome()
    cpus = min(workers, len(shards)) * cpus_per_worker if workers != "auto" else 0
    with ray_session(address or "local", cpus=cpus), Interrupts() as interrupts:
        cluster = Cluster(workers, gpus=gpus_per_worker, cpus=cpus_per_worker, device=spec.device)
        if not shared_fs:
            cluster.refuse_several_nodes(local_paths)
        spec = replace(spec, device="auto" if cluster.gpus and spec.device == "auto" else cluster.device)
        spec = replace(spec, max_error_rate=max_error_rate)
        fleet = Fleet((spec, reader, MeteredSink(sink), build), gpus=cluster.gpus, cpus=cpus_per_worker)
        limits = Limits(
            image_timeout=image_timeout, start_timeout=start_timeout, shard_retries=shard_retries, max_error_rate=max_error_rate,
        )  # fmt: skip
        run = _Run(shards, samples_of, fleet, Policy(shards, limits), on_event)
        try:
            while not run.policy.ended:
                if not shared_fs:
                    cluster.refuse_several_nodes(local_paths)
                run.hear(signals.Capacity(cluster.capacity()))
                run.interrupted(interrupts.count)
                run.turn(POLL_SECONDS)
        finally:
            fleet.close()
        return run.close()


class _Run:
    """State between two turns of the loop that is not the policy's: totals, and what the listener was told."""

    def __init__(
        self,
        shards: Sequence[Shard],
        samples_of: Callable[[Shard], Sequence[Sample]],
        fleet: Fleet,
        policy: Policy,
        on_event: Listener,
    ):
        self.policy = policy
        self.outcome = RunOutcome()
        self._shards = {shard.index: shard for shard in shards}
        self._samples_of = samples_of
        self._fleet = fleet
        self._tell = on_event
        self._told_workers = (-1, -1)
        self._presses = 0
        self._noted: set[str] = set()
        self._abort: signals.Abort | None = None

    def hear(self, signal: signals.Signal) -> None:
        """Pass a signal to the policy and carry out what it orders."""
        self._carry_out(self.policy.handle(signal, time.monotonic()))

    def turn(self, timeout: float) -> None:
        """Wait for news, pass it on, let time pass."""
        for worker, news in self._fleet.news(timeout):
            self._take_in(worker, news)
        self._carry_out(self.policy.tick(time.monotonic()))
        state = self.policy.ready, self.policy.pending
        if state != self._told_workers:
            self._told_workers = state
            self._tell(WorkersChanged(*state))

    def interrupted(self, presses: int) -> None:
        """React to Ctrl-C: the first finishes what is in work, the second ends the loop."""
        if presses and not self._presses:
            self.outcome.interrupted = True
            self._tell(RunStopping(STOPPING))
            self.hear(signals.Stop())
        if presses > 1 and not self.policy.ended:
            self._carry_out(self.policy.cut_short("stopped at once by a second interrupt"))
        self._presses = presses

    def close(self) -> RunOutcome:
        """The totals.

        Raises:
            WorkerStartError: When the policy gave up starting workers.
            TooManyErrorsError: When the circuit breaker opened.
        """
        self.outcome.undone = sorted(self.policy.undone.items())
        if self._abort:
            raise (WorkerStartError if self._abort.cause == "start" else TooManyErrorsError)(self._abort.reason)
        return self.outcome

    def _take_in(self, worker: int, news: News) -> None:
        shard = self.policy.shard_of(worker)
        match news:
            case Hello():
                self.hear(signals.Placed(worker))
            case StartReport(error=None):
                for text in news.notes:
                    self._note(text)
                self.hear(signals.Ready(worker))
            case StartReport(error=text):
                self._fleet.kill(worker)
                self.hear(signals.StartFailed(worker, str(text)))
            case Death():
                self.hear(signals.Died(worker, news.kind, news.text))
            case _ if shard is None:
                pass
            case ImagesAlive():
                self.hear(signals.Alive(worker, news.alive))
                self._tell(ShardProgress(shard, worker, news.finished))
            case Writing():
                self.hear(signals.WriteBegun(worker))
            case ShardDone():
                self.outcome.add(shard, news)
                self._tell(ShardFinished(shard, worker, news))
                failed = count_failures(news.statuses) - news.statuses.get("quarantined", 0)
                self.hear(signals.Done(worker, failed, news.rows))
            case ShardFailed(kind="too_many_errors"):
                self.hear(signals.BreakerOpen(worker, news.text))
            case ShardFailed():
                self.hear(signals.Failed(worker, news.text))

    def _carry_out(self, actions: Sequence[signals.Action]) -> None:
        for action in actions:
            match action:
                case signals.Spawn():
                    self._fleet.spawn(action.worker)
                case signals.Dispatch():
                    shard = self._shards[action.shard]
                    samples = self._samples_of(shard)
                    self._tell(ShardStarted(action.shard, action.worker, action.careful))
                    self._fleet.dispatch(action.worker, shard, samples, action.quarantine, action.careful)
                case signals.Kill():
                    self._fleet.kill_hard(action.worker)
                case signals.Lost():
                    self._lost(action)
                case signals.Quarantine():
                    [sample] = self._ids(action.shard, (action.image,))
                    self.outcome.quarantined.append(sample)
                    self._tell(ImageQuarantined(action.shard, sample))
                case signals.GiveUp():
                    self._tell(ShardGivenUp(action.shard, action.reason))
                case signals.Abort():
                    self._abort = action
                case signals.Finish():
                    pass

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._tell(WorkerNote(text))

    def _lost(self, lost: signals.Lost) -> None:
        if lost.cause == "start":
            self.outcome.failed_starts += 1
        else:
            self.outcome.deaths += 1
        alive = self._ids(lost.shard, lost.alive) if lost.shard is not None else ()
        self._tell(WorkerLost(lost.worker, lost.cause, lost.text, lost.shard, alive))

    def _ids(self, shard: int, positions: Sequence[int]) -> tuple[str, ...]:
        samples = self._samples_of(self._shards[shard]) if positions else ()
        return tuple(samples[position].id for position in positions)
