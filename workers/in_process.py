"""`--workers 0`: the same worker, events and files in this process, without Ray.

A crash takes the run with it and nothing watches for hangs; the same command resumes.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..errors import StorageError, TooManyErrorsError, WorkerStartError
from .events import (
    EarlierShard,
    ImagesAlive,
    Listener,
    RunEvent,
    RunStopping,
    ShardDone,
    ShardFailed,
    ShardFinished,
    ShardGivenUp,
    ShardProgress,
    ShardStarted,
    WorkerEvent,
    WorkerNote,
    WorkersChanged,
)
from .interrupts import STOPPING, Interrupts
from .policy.storage_outage import StorageOutage
from .protocols import SampleReader, ShardSink
from .run_totals import RunTotals
from .samples import Sample, Shard
from .worker.engine_protocol import Build
from .worker.process_state import restore_process_state
from .worker.shard_worker import ShardWorker
from .worker.spec import DECODE_THREADS, MOST_DECODE_THREADS, WorkerSpec

NOT_BEGUN = "not begun when the run was interrupted"


def explain_in_process(
    shards: Sequence[Shard],
    samples_of: Callable[[Shard], Sequence[Sample]],
    spec: WorkerSpec,
    reader: SampleReader,
    sink: ShardSink,
    *,
    max_error_rate: float = 1.0,
    shard_retries: int = 3,
    wait_for_space: bool = False,
    overlap: bool = True,
    on_event: Listener = lambda event: None,
    build: Build | None = None,
) -> RunTotals:
    """Explain the shards one after another in this process.

    Args:
        shards: What is to be done.
        samples_of: The samples of a shard, in order.
        spec: Model and method.
        reader: Bytes of images and masks.
        sink: Takes finished shards.
        max_error_rate: Share of failed images, in [0, 1], above which the run stops; 1 switches this off.
        shard_retries: Further attempts at a shard that raised.
        wait_for_space: Whether storage that is full or down is waited for instead of ending the run.
        overlap: Whether a shard may begin while the one before is completed and committed.
        on_event: Told how the run goes.
        build: Makes the engine; None for the engine of the spec's method.

    Raises:
        WorkerStartError: When the model cannot be built.
        TooManyErrorsError: When the circuit breaker opens.
        StorageError: When the storage is gone.
    """
    with restore_process_state(), Interrupts(patience=1) as interrupts:
        worker = ShardWorker(replace(spec, max_error_rate=max_error_rate), reader, sink, build, _leave)
        report = worker.start()
        if report.error:
            raise WorkerStartError(f"the worker could not start: {report.error}")
        if report.device.startswith("cuda"):
            threads = min(len(os.sched_getaffinity(0)), MOST_DECODE_THREADS)
            worker.spec = replace(worker.spec, decode_threads=max(DECODE_THREADS, threads))
        for text in report.notes:
            on_event(WorkerNote(text))
        on_event(WorkersChanged(ready=1, pending=0))
        totals = RunTotals()
        tell, storage = _Teller(interrupts, totals, on_event), StorageOutage(wait=wait_for_space)
        left = _Left(deque(shards), worker, samples_of, shard_retries, tell, storage, overlap)
        stopped = False
        try:
            left.work_off()
        except KeyboardInterrupt:
            stopped = True
        finally:
            worker.close()
        if left.undone and (stopped or interrupts.count):
            totals.interrupted = True
            totals.undone += [(shard.index, NOT_BEGUN) for shard in left.undone]
        totals.undone.sort()
        return totals


class _Teller:
    """Counts events and passes them on; says once that the run is stopping, and rests only until then."""

    def __init__(self, interrupts: Interrupts, totals: RunTotals, on_event: Listener):
        self._interrupts, self._totals, self._on_event, self._said = interrupts, totals, on_event, False

    def __call__(self, event: RunEvent) -> None:
        if self._interrupts.count and not self._said:
            self._said = True
            self._on_event(RunStopping(STOPPING))
        self._totals.observe(event)
        self._on_event(event)

    @property
    def stopping(self) -> bool:
        """Whether the user wants the run to stop."""
        return self._interrupts.count > 0

    def rest(self, seconds: float) -> None:
        """Do nothing for a while.

        Raises:
            KeyboardInterrupt: If the user wants the run to stop.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._interrupts.count:
                raise KeyboardInterrupt
            time.sleep(min(left, 0.2))


@dataclass
class _Left:
    """What is left to do, shard by shard."""

    queue: deque[Shard]
    worker: ShardWorker
    samples_of: Callable[[Shard], Sequence[Sample]]
    retries: int
    tell: _Teller
    storage: StorageOutage
    overlap: bool
    in_work: list[Shard] = field(default_factory=list)
    """Begun and neither committed nor given up, the latest last."""
    failures: Counter[int] = field(default_factory=Counter)

    @property
    def undone(self) -> list[Shard]:
        """Shards that are neither committed nor given up."""
        return [*self.in_work, *self.queue]

    def work_off(self) -> None:
        """Explain shards until none is left or the user wants the run to stop; then what is begun is completed, but not tried again."""
        while True:
            while self.queue and not self.tell.stopping:
                self._explain_next()
            self._follow(self.worker.complete())
            if not self.queue or self.tell.stopping:
                return

    def _explain_next(self) -> None:
        shard = self.queue.popleft()
        self.in_work.append(shard)
        self.tell(ShardStarted(shard.index, 0, careful=False))
        follows = self.overlap and bool(self.queue)
        self._follow(self.worker.run(shard, self.samples_of(shard), leave_open=follows))

    def _follow(self, events: Iterator[WorkerEvent]) -> None:
        for event in events:
            if isinstance(event, EarlierShard):
                shard = next((shard for shard in self.in_work if shard.index == event.shard), None)
                told = event.event
            else:
                shard, told = self.in_work[-1], event
            if shard is not None:
                self._hear(shard, told)

    def _hear(self, shard: Shard, event: WorkerEvent) -> None:
        match event:
            case ImagesAlive():
                self.tell(ShardProgress(shard.index, 0, event.finished))
            case ShardDone():
                self.storage.over()
                self.in_work.remove(shard)
                self.tell(ShardFinished(shard.index, 0, event))
            case ShardFailed(kind="too_many_errors"):
                raise TooManyErrorsError(event.text)
            case ShardFailed(kind="storage"):  # computed, and kept by the worker: only the put is tried again
                self._try_again(shard)
                if self.storage.failed(shard.index, permanent=event.permanent):
                    raise StorageError(self.storage.reason(event.text))
                if note := self.storage.note(event.text):
                    self.tell(WorkerNote(note))
                self.tell.rest(self.storage.pause)
            case ShardFailed():
                self.failures[shard.index] += 1
                if self.failures[shard.index] <= self.retries:
                    self._try_again(shard)
                    return
                self.in_work.remove(shard)
                text = f"{self.retries + 1} attempts failed, the last: {event.text}"
                self.tell(ShardGivenUp(shard.index, text))
            case _:
                pass

    def _try_again(self, shard: Shard) -> None:
        self.in_work.remove(shard)
        self.queue.appendleft(shard)


def _leave(code: int) -> None:
    raise SystemExit(f"the accelerator of this process no longer computes (exit code {code}); the same command resumes")
