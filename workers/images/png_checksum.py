"""Checksums of a PNG's pixels, which Pillow does not look at: it shows whatever a damaged file unpacks to."""

from __future__ import annotations

import zlib

_SIGNATURE = 8
"""Bytes before the first chunk."""


def check_png(data: bytes) -> None:
    """Compare the checksum of every complete IDAT chunk; of the others Pillow does it, and it complains about a file cut short.

    Raises:
        ValueError: If the bytes are not those that were written.
    """
    view = memoryview(data)
    place = _SIGNATURE
    while place + 12 <= len(view):
        length, name = int.from_bytes(view[place : place + 4]), view[place + 4 : place + 8]
        end = place + 8 + length
        whole = end + 4 <= len(view)
        if name == b"IDAT" and whole and zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise ValueError("the checksum of its IDAT chunk is wrong; get the file again from where it came")
        if name == b"IEND":
            return
        place = end + 4
