"""Where things are: local paths and fsspec URIs through one door. Knows nothing of what is stored there."""

from __future__ import annotations

import os
from typing import cast

from fsspec import AbstractFileSystem, available_protocols
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ...errors import UsageError, did_you_mean

EMPTY = "an empty path names no place; give a local path or a URI such as s3://bucket/run"


def locate(uri: str | os.PathLike[str]) -> tuple[AbstractFileSystem, str]:
    """The file system of `uri` and the path in it; a string without a scheme is a local path.

    Raises:
        UsageError: For an unknown scheme, or one whose package is not installed.
    """
    text = os.fspath(uri)
    if not text:
        raise UsageError(EMPTY)
    try:
        return url_to_fs(text)
    except ImportError as error:
        raise UsageError(f"{text}: {error} (with pip, into the environment of heatlas)") from None
    except ValueError as error:
        scheme = text.split("://", 1)[0]
        hint = did_you_mean(scheme, available_protocols())
        raise UsageError(f"{text}: {error}{hint}; give a local path or one of s3://, gs://, az://, memory://") from None


def is_local(fs: AbstractFileSystem) -> bool:
    """Whether `fs` is a mounted file system (NFS included), where files can be linked and synced."""
    return isinstance(fs, LocalFileSystem)


def is_path(uri: str) -> bool:
    """Whether a place is written as an absolute local path."""
    return uri.startswith("/")


def bytes_of(fs: AbstractFileSystem, path: str, start: int | None = None) -> bytes:
    """The whole file, or what follows its first `start` bytes."""
    return cast(bytes, fs.cat_file(path) if start is None else fs.cat_file(path, start=start))


def child(uri: str | os.PathLike[str], name: str) -> str:
    """The place called `name` (may contain `/`) below `uri`, written in the same way as `uri`.

    Raises:
        UsageError: For an empty `uri`, below which would be the root of the machine.
    """
    if not os.fspath(uri):
        raise UsageError(EMPTY)
    return f"{os.fspath(uri).rstrip('/')}/{name}"


def names_in(fs: AbstractFileSystem, path: str) -> list[str]:
    """Base names of what lies directly in the folder `path`, read afresh; empty if there is no such folder."""
    return sorted(sizes_in(fs, path))


def sizes_in(fs: AbstractFileSystem, path: str) -> dict[str, int]:
    """Base name and size in bytes of everything directly in the folder `path`, by exactly one listing.

    The listing cache is dropped first, because other processes write here.
    """
    fs.invalidate_cache(path)
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    own = path.rstrip("/")  # object stores may list the folder's own marker object
    rows = ((entry["name"].rstrip("/"), entry.get("size") or 0) for entry in entries)
    return {name.rsplit("/", 1)[-1]: size for name, size in rows if name != own}


def same_place(uri: str, other: str) -> bool:
    """Whether two paths or URIs name one place, links followed where both are local paths."""
    if "://" in uri + other:
        return uri.rstrip("/") == other.rstrip("/")
    return os.path.realpath(uri) == os.path.realpath(other)
