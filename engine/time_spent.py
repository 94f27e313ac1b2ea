"""Where the seconds go: a clock that charges each moment to one stage of the work, and counts what was computed for nothing."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

STAGES = (
    "waiting",
    "decoding",
    "gradients",
    "masks",
    "forwards",
    "method",
    "metrics",
    "pictures",
    "encoding",
    "commit",
    "storing",
    "other",
)
"""Waiting for decoded images; decoding, which threads do beside the rest; a method's own passes; making masks and other variants;
scoring them; a method's remaining work; metrics; maps as pictures, which a thread makes beside the rest; encoding rows; storing them;
both in a thread, beside the next shard; all else. On an accelerator the host's time counts: an
operation is charged to the stage that waits for it."""


class WorkMeter:
    """Seconds by stage. A stage within a stage stops the outer one's clock; one thread uses `at`, any thread `add`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._open: list[str] = []
        self._since = 0.0
        self._lock = threading.Lock()
        self.seconds = defaultdict[str, float](float)
        self.padded = 0
        """Rows of forwards that held nothing."""

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """Charge the time within the context to a stage."""
        self._charge()
        self._open.append(stage)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def add(self, stage: str, seconds: float) -> None:
        """Charge time that passed beside the rest."""
        with self._lock:
            self.seconds[stage] += seconds

    def take(self) -> tuple[dict[str, float], int]:
        """Seconds by stage and padded rows since the last time, and begin anew."""
        self._charge()
        with self._lock:
            taken, self.seconds = dict(self.seconds), defaultdict[str, float](float)
        padded, self.padded = self.padded, 0
        return taken, padded

    def _charge(self) -> None:
        now = self._clock()
        if self._open:
            self.add(self._open[-1], now - self._since)
        self._since = now


_CURRENT: ContextVar[WorkMeter | None] = ContextVar("heatlas_work_meter", default=None)


@contextmanager
def measured_by(meter: WorkMeter) -> Iterator[None]:
    """Let `stage` charge this meter within the context."""
    token = _CURRENT.set(meter)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Charge the time within the context to a stage of whoever measures, if anybody does."""
    meter = _CURRENT.get()
    if meter is None:
        yield
        return
    with meter.at(name):
        yield
