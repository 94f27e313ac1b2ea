"""The worker as a plain class: builds its model once, then explains one shard after another. Knows no Ray."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from ...engine.time_spent import measured_by
from ...errors import StorageError, TooManyErrorsError
from ..events import ShardDone, ShardFailed, StartReport, WorkerEvent, WorkerPlaced, Writing
from ..policy.circuit_breaker import Breaker, count_failures
from ..protocols import RowEncoder, SampleReader, ShardSink
from ..samples import Row, Sample, Shard
from .engine_protocol import Build, Engine
from .error_kinds import describe
from .report_pace import ReportPace
from .shard_attempt import ShardAttempt, count_statuses
from .spec import WorkerSpec

DECODE_AHEAD = 2


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
        self._held: dict[int, tuple[list[Row], float]] = {}
        """Rows of shards that are computed and could not be put, and the seconds that they took."""

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
        self, shard: Shard, samples: Sequence[Sample], quarantine: Collection[int] = (), careful: bool = False
    ) -> Iterator[WorkerEvent]:
        """Explain the samples of `shard` and commit their rows.

        Args:
            shard: What to commit to.
            samples: Its samples in order; a position is an index into them.
            quarantine: Positions that get an error row and are not touched.
            careful: One image in flight at a time and nothing decoded ahead, so that a death names its image exactly.

        Yields:
            `ImagesAlive` before each image is touched, `Writing` before the commit, then `ShardDone`; or `ShardFailed`.
        """
        begun = time.perf_counter()
        try:
            held = self._held.get(shard.index)
            if held is None:
                self.engine.meter.take()
                self._pace.pause()
                attempt = ShardAttempt(
                    self.engine, self.reader, samples,
                    target=self.spec.target, quarantine=quarantine, exit_process=self._exit_process, pace=self._pace,
                    encode=self.sink.encode if isinstance(self.sink, RowEncoder) else None,
                )  # fmt: skip
                yield from attempt.work(0 if careful else DECODE_AHEAD)
                self._refuse_too_many_errors(attempt.rows)
                if attempt.rows:
                    attempt.rows[-1].padded_forwards = self.engine.meter.padded
                held = self._held[shard.index] = attempt.rows, time.perf_counter() - begun
            rows, seconds = held
            yield Writing()
            try:
                with self.engine.meter.at("commit"), measured_by(self.engine.meter):
                    first = self.sink.commit(shard, rows)
            except StorageError as error:
                if not error.outage:
                    raise
                yield ShardFailed("storage", describe(error), permanent=error.outage == "permanent")
                return
            del self._held[shard.index]
            stages, padded = self.engine.meter.take()
            done = summary(rows, len(samples), first, seconds, self.engine.batch_size)
            yield replace(done, stages=stages, padded=padded)
        except TooManyErrorsError as error:
            yield ShardFailed("too_many_errors", str(error))
        except Exception as error:
            self._held.pop(shard.index, None)
            yield ShardFailed("error", describe(error))

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
