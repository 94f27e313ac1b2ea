"""The run's event log: one JSON object a line in `_logs/events-<time>.jsonl`, local or behind fsspec.

A log that cannot be written never stops a run: the first failure is told and the rest goes unlogged.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from typing import Any, TextIO

from ...errors import StorageError
from ..storage.atomic_write import put
from ..storage.location import child, is_local, locate
from ..terminal_log import LOG

LOGS = "_logs"
FLUSH_SECONDS = 60.0
"""Object stores cannot append, so there the log is written anew this often, and at the end."""


class EventLog:
    """Appends records; every record gets the time in UTC."""

    def __init__(self, out: str) -> None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
        self.uri = child(out, f"{LOGS}/events-{stamp}-{os.getpid()}.jsonl")
        self._lines: list[str] = []
        self._written = time.monotonic()
        self._file: TextIO | None = None
        self._broken = False
        try:
            fs, path = locate(self.uri)
            if is_local(fs):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  lives as long as the run
        except OSError as error:
            self._give_up(error)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record of JSON values."""
        if self._broken:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **record}, default=str) + "\n"
        try:
            if self._file:
                self._file.write(line)
                return
            self._lines.append(line)
            if time.monotonic() - self._written > FLUSH_SECONDS:
                self._put()
        except (OSError, StorageError) as error:
            self._give_up(error)

    def close(self) -> None:
        try:
            if self._file:
                self._file.close()
            elif self._lines and not self._broken:
                self._put()
        except (OSError, StorageError) as error:
            self._give_up(error)

    def _put(self) -> None:
        put(self.uri, "".join(self._lines).encode())
        self._written = time.monotonic()

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        LOG.warning(f"the event log {self.uri} cannot be written ({error}); the run goes on without it")
