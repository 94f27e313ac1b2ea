"""What Ray's C++ code writes to standard error while it starts or connects, kept for who looks for it instead of shown."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


class NativeMessages:
    """What was written meanwhile."""

    path: str | None = None
    """The file that holds it; None where nothing was written."""

    def __str__(self) -> str:
        return "" if self.path is None else f" (Ray's own messages are in {self.path})"


@contextlib.contextmanager
def kept_native_messages() -> Iterator[NativeMessages]:
    """Point file descriptor 2 at a file of this user's while the body runs; the file stays where something was written to it."""
    kept = NativeMessages()
    try:
        sys.stderr.flush()
        shown = os.dup(2)
        handle, path = tempfile.mkstemp(prefix="heatlas-ray-", suffix=".log")
    except OSError:  # closed, or no place for files: then they are shown
        yield kept
        return
    os.dup2(handle, 2)
    try:
        yield kept
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os.dup2(shown, 2)
        os.close(shown)
        if os.fstat(handle).st_size:
            kept.path = path
        else:
            os.unlink(path)
        os.close(handle)
