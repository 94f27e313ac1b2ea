"""The worker as a plain class: builds its model once, then explains one shard after another. Knows no Ray."""

from __future__ import annotations

import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

from ...errors import StorageError, TooManyErrorsError
from ..events import (
    EarlierShard,
    ImagesAlive,
    ShardDone,
    ShardFailed,
    ShardOpen,
    StartReport,
    WorkerEvent,
    WorkerPlaced,
    Writing,
)
from ..policy.circuit_breaker import Breaker, count_failures
from ..protocols import RowEncoder, SampleReader, ShardSink
from ..samples import Row, Sample, Shard
from .engine_protocol import Build, Engine
from .error_kinds import describe
from .image_rows import count_statuses
from .report_pace import ReportPace
from .shard_attempt import ShardAttempt
from .shards_in_work import CommittedRows, Computed, OpenShard, store_rows
from .spec import WorkerSpec


class ShardWorker:
    """Explains shards and commits them.

    Args:
        spec: What to build; plain values.
        reader: Bytes of images and masks.
        sink: Takes finished shards.
        build: Makes the engine from the spec; None for the engine of the spec's method. Called in `start`, not here, so that an actor's creation is cheap.
        exit_process: Leaves the process at once when the device is broken.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        reader: SampleReader,
        sink: ShardSink,
        build: Build | None = None,
        exit_process: Callable[[int], object] = os._exit,
    ):
        self.spec = spec
        self.reader = reader
        self.sink = sink
        self._build = build
        self._exit_process = exit_process
        self._engine: Engine | None = None
        self._breaker = Breaker(spec.max_error_rate)
        self._pace = ReportPace()
        self._held: dict[int, Computed] = {}
        """Of shards that are computed and could not be put, or not yet."""
        self._open: OpenShard | None = None
        """The shard whose last images are in flight between two calls."""
        self._computed_at = 0.0
        self._storing: ThreadPoolExecutor | None = None

    def start(self) -> StartReport:
        """Build the model."""
        try:
            return StartReport(self.engine.device, notes=self.engine.notes)
        except Exception as error:
            return StartReport(error=describe(error))

    @property
    def engine(self) -> Engine:
        """The engine, built at first use."""
        if self._engine is None:
            build = self._build
            if build is None:
                from .build import build_engine as build
            self._engine = build(self.spec, self.reader)
        return self._engine

    def place(self) -> WorkerPlaced:
        """Where this process runs; an answer at all says that it lives."""
        return WorkerPlaced(os.getpid(), socket.gethostname())

    def run(
        self,
        shard: Shard,
        samples: Sequence[Sample],
        quarantine: Collection[int] = (),
        careful: bool = False,
        leave_open: bool = False,
    ) -> Iterator[WorkerEvent]:
        """Explain the samples of `shard` and commit their rows, beside the last images and the commit of the shard that was left open.

        Args:
            shard: What to commit to.
            samples: Its samples in order; a position is an index into them.
            quarantine: Positions that get an error row and are not touched.
            careful: One image in flight at a time and nothing decoded ahead, so that a death names its image exactly; what was left open
                is completed before.
            leave_open: Stop while the last images are in flight, because another `run`, or `complete`, follows.

        Yields:
            `ImagesAlive` before each image is touched, `Writing` before the commit, then `ShardDone`; or `ShardFailed`; or `ShardOpen` at
            the end of a shard that is left open. What happens to the shard that was left open before comes as `EarlierShard`; it is over
            before this one is.
        """
        before, self._open = self._open, None
        work, kept = OpenShard(shard), shard.index in self._held
        if before is not None and before.attempt is not None:
            before.attempt.earlier = before.shard.index
        try:
            if before is not None and (careful or kept):
                yield from self._earlier(before, self._complete(before))
            if kept:
                work.computed = self._held[shard.index]
            else:
                yield from self._explain(work, before, samples, quarantine, careful, leave_open)
            if before is not None:
                yield from self._earlier(before, self._complete(before))
            if leave_open and not careful and not kept:
                self._open = work
                yield ShardOpen()
                return
            yield from self._complete(work)
        except Exception as error:
            if before is not None:
                yield from self._earlier(before, self._rescue(before, error))
            yield self._failed(work, error)
        except BaseException:
            for left in (work, before):
                if left is not None and left.attempt is not None:
                    left.attempt.abandon()
            raise

    def complete(self) -> Iterator[WorkerEvent]:
        """Work off the shard that was left open, if any, and commit it; events as those of `run`."""
        work, self._open = self._open, None
        if work is not None:
            yield from self._complete(work)

    def close(self) -> None:
        """Forget the shard that was left open, and let a commit that is under way come to its end."""
        if self._open is not None and self._open.attempt is not None:
            self._open.attempt.abandon()
        self._open = None
        if self._storing is not None:
            self._storing.shutdown(cancel_futures=True)
            self._storing = None

    def _explain(
        self, work: OpenShard, before: OpenShard | None, samples: Sequence[Sample], quarantine: Collection[int], careful: bool, leave_open: bool,
    ) -> Iterator[WorkerEvent]:  # fmt: skip
        """Explain the samples, and as soon as the shard before has its rows commit them in a thread."""
        if before is None or before.over:
            before = None
            self.engine.meter.take()
        self._pace.pause()
        attempt = work.attempt = ShardAttempt(
            self.engine, self.reader, samples,
            target=self.spec.target, quarantine=quarantine, exit_process=self._exit_process, pace=self._pace,
            encode=self.sink.encode if isinstance(self.sink, RowEncoder) else None,
            before=None if before is None else before.attempt,
        )  # fmt: skip
        for event in attempt.work(0 if careful else self.spec.decode_threads, leave_open=leave_open and not careful):
            yield event
            if before is not None:
                yield from self._earlier(before, self._advance(before))
        if before is not None and before.attempt is not None and not before.attempt.complete:
            yield from attempt.flush()

    def _earlier(self, before: OpenShard, events: Iterator[WorkerEvent]) -> Iterator[WorkerEvent]:
        """The events of the shard before, named as such."""
        for event in events:
            named = isinstance(event, ImagesAlive | Writing | ShardDone | ShardFailed)
            yield EarlierShard(before.shard.index, event) if named else event

    def _advance(self, work: OpenShard) -> Iterator[WorkerEvent]:
        """Take the shard before a step further, without waiting for anything."""
        attempt = work.attempt
        if work.over or attempt is None:
            return
        if work.storing is not None:
            if work.storing.done():
                yield self._stored(work)
        elif attempt.complete:
            try:
                self._compute(work)
            except Exception as error:
                yield self._failed(work, error)
                return
            yield Writing()
            if self._storing is None:
                self._storing = ThreadPoolExecutor(1, thread_name_prefix="commit")
            work.storing = self._storing.submit(self._store, work, beside=True)
        elif attempt.alive != work.told:
            work.told = attempt.alive
            yield attempt.heartbeat()

    def _complete(self, work: OpenShard) -> Iterator[WorkerEvent]:
        """Whatever is left to do for a shard: its last images, its commit."""
        if work.over:
            return
        if work.storing is None:
            try:
                if work.attempt is not None and not work.attempt.complete:
                    yield from work.attempt.finish()
                if work.attempt is not None:
                    with self.engine.meter.at("encoding"):
                        work.attempt.encoded()
                self._compute(work)
            except Exception as error:
                yield self._failed(work, error)
                return
            yield Writing()
            work.storing = Future()
            try:
                work.storing.set_result(self._store(work, beside=False))
            except Exception as error:
                work.storing.set_exception(error)
        with self.engine.meter.at("commit"):
            wait([work.storing])
        yield self._stored(work)

    def _rescue(self, work: OpenShard, error: Exception) -> Iterator[WorkerEvent]:
        """Complete the shard before, whose images in flight went with an error of the present one."""
        if not work.over and work.storing is None and work.attempt is not None and not work.attempt.complete:
            try:
                yield from work.attempt.explain_alone()
            except Exception as own:
                error = own
            if not work.attempt.complete:
                work.attempt.abandon()
                yield self._failed(work, error)
        yield from self._complete(work)

    def _compute(self, work: OpenShard) -> None:
        """Take the rows of a shard whose images are all done.

        Raises:
            TooManyErrorsError: When too many of the recent images failed.
            RuntimeError: When the engine lost an image.
        """
        if work.computed is not None or work.attempt is None:
            return
        rows = work.attempt.rows
        self._refuse_too_many_errors(rows)
        stages, padded = self.engine.meter.take()
        if rows:
            rows[-1].padded_forwards = padded
        now = time.perf_counter()
        seconds = now - max(work.begun, self._computed_at)
        work.computed = Computed(rows, len(work.attempt.samples), seconds, stages, padded)
        self._held[work.shard.index], self._computed_at = work.computed, now

    def _store(self, work: OpenShard, *, beside: bool) -> CommittedRows:
        if work.computed is None:
            raise RuntimeError(f"shard {work.shard.index} has no rows yet")
        return store_rows(self.sink, work.shard, work.computed.rows, work.attempt, beside=beside)

    def _stored(self, work: OpenShard) -> WorkerEvent:
        """How the commit ended."""
        if work.storing is None or work.computed is None:
            raise RuntimeError(f"shard {work.shard.index} is not being stored")
        computed = work.computed
        try:
            stored = work.storing.result()
        except Exception as error:
            return self._failed(work, error)
        work.end()
        del self._held[work.shard.index]
        done = summary(computed.rows, computed.images, stored.first, computed.seconds, self.engine.batch_size)
        stages = Counter(computed.stages)
        stages.update(stored.stages)  # pyright: ignore[reportArgumentType, reportCallIssue]
        return replace(done, stages=dict(stages), padded=computed.padded)

    def _failed(self, work: OpenShard, error: Exception) -> ShardFailed:
        """What went wrong, as data; rows that the storage would not take are kept, all else is forgotten."""
        work.end()
        if isinstance(error, TooManyErrorsError):
            return ShardFailed("too_many_errors", str(error))
        if isinstance(error, StorageError) and error.outage and work.computed is not None:
            return ShardFailed("storage", describe(error), permanent=error.outage == "permanent")
        self._held.pop(work.shard.index, None)
        return ShardFailed("error", describe(error))

    def _refuse_too_many_errors(self, rows: Sequence[Row]) -> None:
        if not self._breaker.add(count_failures(count_statuses(rows)), len(rows)):
            return
        example = next((row for row in rows if row.error), None)
        last = f" (for example {example.sample.id!r}: {example.status}: {example.error})" if example else ""
        raise TooManyErrorsError(self._breaker.reason() + last)


def summary(rows: Sequence[Row], images: int, first: bool, seconds: float, batch_size: int) -> ShardDone:
    """Totals of a committed shard."""
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        for name, value in row.metrics.items():
            if value is not None and math.isfinite(value):
                total, count = sums.get(name, (0.0, 0))
                sums[name] = total + float(value), count + 1
    return ShardDone(
        rows=len(rows), images=images, first=first, statuses=count_statuses(rows), forwards=sum(row.n_forwards for row in rows),
        seconds=seconds, metric_sums=sums, batch_size=batch_size,
    )  # fmt: skip
