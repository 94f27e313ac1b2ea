"""Ctrl-C, counted: the first asks to finish what is begun, the second to stop at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = "interrupted: finishing the shards in work; interrupt again to stop at once. The same command resumes"


class Interrupts:
    """Counts SIGINT and SIGTERM while it is entered, instead of raising; does nothing outside the main thread.

    Args:
        patience: So many presses are only counted, the next raises `KeyboardInterrupt`.
    """

    def __init__(self, patience: int = 2):
        self.count = 0
        self._patience = patience
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._press) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > self._patience:
            raise KeyboardInterrupt
