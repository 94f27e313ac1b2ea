"""Standard output and error that may be full or gone: what cannot be printed is dropped, and the work goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""A device without room, a terminal that was closed. Not a pipe without a reader, which ends the command as usual."""


class GuardedStream:
    """A text stream whose failures to write are kept in `failure` instead of raised; anything else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """As of the stream; dropped once a write has failed."""
        with self._kept():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._kept():
            self._stream.flush()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.failure = self.failure or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded_streams() -> Iterator[GuardedStream]:
    """Guard both while the body runs; gives what stands for standard output."""
    out, err = sys.stdout, sys.stderr
    guarded = GuardedStream(out)
    sys.stdout, sys.stderr = guarded, GuardedStream(err)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield guarded
    finally:
        guarded.flush()
        sys.stdout, sys.stderr = out, err


def discard_unwritten() -> None:
    """Point standard output at nothing, so that what its buffer still holds does not fail once more at the end of the process."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
