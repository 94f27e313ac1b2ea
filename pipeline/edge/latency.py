"""How long one image takes, and on what processor."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WARM_UP_CALLS = 10


@dataclass(frozen=True)
class Latency:
    """Seconds of one call with one image."""

    median: float
    p95: float
    calls: int


def measure_latency(call: Callable[[], object], calls: int) -> Latency:
    """Time a call `calls` times, after 10 untimed ones."""
    for _ in range(WARM_UP_CALLS):
        call()
    seconds = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return Latency(float(np.median(seconds)), float(np.percentile(seconds, 95)), calls)


def cpu_name() -> str:
    """What the machine calls its processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
