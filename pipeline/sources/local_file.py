"""One regular file of a mounted file system, whole; nothing that would block for ever, run for ever or fill the memory."""

from __future__ import annotations

import os
import stat

from ...engine.errors import SampleError
from ...engine.statuses import READ_ERROR

LARGEST = 2 << 30
"""Bytes; more than any image within the limit on pixels needs."""
_FLAGS = os.O_RDONLY | os.O_NONBLOCK


def read_regular(path: str, *, follow: bool = True) -> bytes:
    """The file's bytes.

    Args:
        path: Absolute.
        follow: Whether the last part of `path` may be a symbolic link.

    Raises:
        SampleError: For a pipe, a socket or a device, and for a file larger than `LARGEST`.
        OSError: As the operating system says.
    """
    _check(os.stat(path) if follow else os.lstat(path))  # before opening: to open a device may do something
    descriptor = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        _check(os.fstat(descriptor))
        return file.read()


def _check(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise SampleError(READ_ERROR, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise SampleError(READ_ERROR, "not a regular file but a link, pipe, socket or device")
    if status.st_size > LARGEST:
        raise SampleError(
            READ_ERROR, f"{status.st_size} bytes are more than the limit of {LARGEST} for a file; scale the image down"
        )
