"""One regular file of a mounted file system, whole; nothing that would block for ever, run for ever or fill the memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

from ....errors import SampleError
from ....statuses import READ_ERROR

LARGEST = 2 << 30
"""Bytes; more than any image within the limit on pixels needs."""
_FLAGS = os.O_RDONLY | os.O_NONBLOCK


def read_regular(path: str, *, follow: bool = True) -> bytes:
    """The file's bytes.

    Args:
        path: Absolute.
        follow: Whether the last part of `path` may be a symbolic link.

    Raises:
        SampleError: For a pipe, a socket or a device, and for a file larger than `LARGEST` bytes.
        OSError: As the operating system says.
    """
    with open_regular(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST:
            raise SampleError(
                READ_ERROR, f"{size} bytes are more than the limit of {LARGEST} for a file; scale the image down"
            )
        return file.read()


def read_within(path: str, ranges: Sequence[tuple[int, int]], *, follow: bool = True) -> list[bytes]:
    """Some bytes of the file, by offset and length; the file itself may have any size.

    Raises:
        SampleError: As `open_regular`, and where the file ends before.
        OSError: As the operating system says.
    """
    pieces = []
    with open_regular(path, follow=follow) as file:
        for offset, length in ranges:
            file.seek(offset)
            pieces.append(file.read(length))
            if len(pieces[-1]) != length:
                raise SampleError(READ_ERROR, f"{path} is shorter than when it was listed")
    return pieces


def open_regular(path: str, *, follow: bool = True) -> BinaryIO:
    """The open file.

    Raises:
        SampleError: For anything but a regular file.
        OSError: As the operating system says.
    """
    check_regular(path, follow=follow)  # before opening: to open a device may do something
    file = open(os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW), "rb")  # noqa: SIM115  (the caller's)
    try:
        _check(os.fstat(file.fileno()))
    except SampleError:
        file.close()
        raise
    return file


def check_regular(path: str, *, follow: bool = True) -> str:
    """Which version of the file it is: another text after it was replaced.

    Raises:
        SampleError: For anything but a regular file.
        OSError: As the operating system says.
    """
    status = os.stat(path) if follow else os.lstat(path)
    _check(status)
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _check(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise SampleError(READ_ERROR, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise SampleError(READ_ERROR, "not a regular file but a link, pipe, socket or device")
