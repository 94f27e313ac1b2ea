"""`--workers 0`: the same worker, events and files in this process, without Ray.

A crash takes the run with it and nothing watches for hangs; the same command resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import StorageError, TooManyErrorsError, WorkerStartError
from .events import (
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
from .worker.spec import WorkerSpec

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
        for text in report.notes:
            on_event(WorkerNote(text))
        on_event(WorkersChanged(ready=1, pending=0))
        totals = RunTotals()
        tell, storage = _Teller(interrupts, totals, on_event), StorageOutage(wait=wait_for_space)
        for number, shard in enumerate(shards):
            try:
                if not interrupts.count:
                    _explain_shard(worker, shard, samples_of(shard), shard_retries, tell, storage)
                    continue
            except KeyboardInterrupt:
                pass
            totals.interrupted = True
            totals.undone += [(left.index, NOT_BEGUN) for left in shards[number:]]
            break
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


def _explain_shard(
    worker: ShardWorker, shard: Shard, samples: Sequence[Sample], retries: int, tell: _Teller, storage: StorageOutage
) -> None:
    reason, left = "", retries + 1
    while left:
        left -= 1
        tell(ShardStarted(shard.index, 0, careful=False))
        for event in worker.run(shard, samples):
            match event:
                case ImagesAlive():
                    tell(ShardProgress(shard.index, 0, event.finished))
                case ShardDone():
                    storage.over()
                    tell(ShardFinished(shard.index, 0, event))
                    return
                case ShardFailed(kind="too_many_errors"):
                    raise TooManyErrorsError(event.text)
                case ShardFailed(kind="storage"):
                    left += 1  # computed, and kept by the worker: only the put is tried again
                    if storage.failed(shard.index, permanent=event.permanent):
                        raise StorageError(storage.reason(event.text))
                    if note := storage.note(event.text):
                        tell(WorkerNote(note))
                    tell.rest(storage.pause)
                case ShardFailed():
                    reason = event.text
                case _:
                    pass
    tell(ShardGivenUp(shard.index, f"{retries + 1} attempts failed, the last: {reason}"))


def _leave(code: int) -> None:
    raise SystemExit(f"the accelerator of this process no longer computes (exit code {code}); the same command resumes")
