"""What lies where in a tar: one pass over its headers, images are skipped, never unpacked. Members are bytes here and nothing
else: no name becomes a path, links and devices are left out."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from fsspec import AbstractFileSystem

from ....errors import DataError
from ...storage.location import is_local

COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
LARGEST_TEXT = 16 << 20
"""Bytes of a `.json`, `.cls` or `.txt` member."""
_AHEAD = 1 << 20
"""Bytes per request to a remote storage: small images are read over, large ones jumped over."""
_BLOCK = 512


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    offset: int
    """Of its bytes in the tar."""
    size: int
    text: bytes | None
    """Its content, where it was asked for."""


def members(
    fs: AbstractFileSystem, path: str, origin: str, wants_text: Callable[[str], bool] = lambda name: False
) -> Iterator[Member]:
    """All regular files in a tar, in stored order.

    Args:
        fs: Where the tar is.
        path: Its path there.
        origin: The tar as the user sees it, for messages.
        wants_text: Says by a member's name whether its content is wanted too.

    Raises:
        DataError: If it is compressed, damaged or cut short.
    """
    size = fs.size(path)
    if size is None:
        raise DataError(
            f"the size of {origin} is not known here, so it cannot be seen whether it is whole; copy it elsewhere"
        )
    try:
        with _opened(fs, path) as file:
            _refuse_compressed(file, origin)
            yield from _members(file, size, origin, wants_text)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{origin} is damaged or not a tar: {error}; copy or download it again") from error


def _opened(fs: AbstractFileSystem, path: str) -> IO[bytes]:
    if is_local(fs):
        return open(path, "rb")
    return fs.open(path, "rb", block_size=_AHEAD, cache_type="readahead")  # pyright: ignore[reportReturnType]


def _refuse_compressed(file: IO[bytes], origin: str) -> None:
    head = file.read(6)
    file.seek(0)
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head == b"\xfd7zXZ\x00" or head[:4] == b"\x28\xb5\x2f\xfd":
        raise DataError(f"{origin} is compressed, so its images cannot be read one by one; unpack it to a plain .tar, images are compressed anyway")  # fmt: skip


def _members(file: IO[bytes], size: int, origin: str, wants_text: Callable[[str], bool]) -> Iterator[Member]:
    # "r:" reads headers only and jumps over what they describe; names that are not UTF-8 keep their odd bytes visible
    with tarfile.open(fileobj=file, mode="r:", errors="backslashreplace", ignore_zeros=False) as tar:
        while (header := tar.next()) is not None:
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  (which would keep every header)
            end = header.offset_data + header.size
            if header.isreg() and end > size:
                raise _cut_short(origin, f"{header.name!r} ends at byte {end}, the file has {size}")
            if not header.isreg() or header.issparse() or is_resource_fork(header.name):
                continue
            text = None
            if wants_text(header.name):
                if header.size > LARGEST_TEXT:
                    raise DataError(
                        f"{header.name!r} in {origin} has {header.size} bytes, more than the limit of {LARGEST_TEXT}"
                    )
                file.seek(header.offset_data)
                text = file.read(header.size)
            yield Member(header.name, header.offset_data, header.size, text)
        last = tar.offset
    file.seek(last)
    mark = file.read(_BLOCK)
    if len(mark) < _BLOCK:
        raise _cut_short(origin, "its end mark is missing; if it is whole, append one with `truncate -s +1024`")
    if mark.strip(b"\0"):  # where tarfile stops without a word
        raise DataError(f"{origin} is damaged: there is no header at byte {last}; copy or download it again")


def _cut_short(origin: str, how: str) -> DataError:
    return DataError(f"{origin} is cut short: {how}; otherwise copy or download it again")


def is_resource_fork(name: str) -> bool:
    """Whether macOS wrote the member beside another (`._0001.jpg`, `__MACOSX/`): no data of the user's."""
    return name.rpartition("/")[2].startswith("._") or name.removeprefix("./").startswith("__MACOSX/")


def key_and_suffix(name: str) -> tuple[str, str]:
    """WebDataset's rule: the base name is divided at its first dot; `a/b.seg.png` is `a/b` and `seg.png`."""
    folder, base = os.path.split(name.removeprefix("./"))
    key, _, suffix = base.partition(".")
    return f"{folder}/{key}" if folder else key, suffix
