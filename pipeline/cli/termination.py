"""SIGTERM before a run has begun, and in every command that is no run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""Exit code, as shells give it to a process that the signal ended."""


@contextlib.contextmanager
def ending_at_sigterm() -> Iterator[None]:
    """End at once with `TERMINATED`, cleaning up as at every other end; also as process 1 of a container, whom the system would not end.

    A run, which finishes its shards first, takes the signal over. A handler that somebody else set stays.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(TERMINATED))  # should somebody swallow what is raised here
    if _imports(frame):
        os._exit(TERMINATED)  # nothing has begun, and modules that are half loaded make tracebacks
    raise SystemExit(TERMINATED)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being loaded."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
