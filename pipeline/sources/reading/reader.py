"""Bytes of images and masks from wherever fsspec reaches, and from inside of files; picklable, because it travels into workers."""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa
from fsspec import AbstractFileSystem

from ....errors import SampleError, StorageError, UsageError
from ....statuses import READ_ERROR
from ...storage.backoff import with_retries
from ...storage.location import bytes_of, locate
from .cells import cell
from .confinement import Confinement
from .container_uri import ContainerUri, Range, is_container_uri, parse_uri
from .drawn_masks import draw_mask
from .items import item_bytes
from .local_file import LARGEST, check_regular, open_regular, read_regular, read_within


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """A file that may be read, and how to reach it."""

    path: str
    """Free of links where the data root confines it."""
    fs: AbstractFileSystem | None
    """None for local files, which are opened as they are."""
    follow_links: bool
    """Whether the last part of a local path may be a symbolic link."""


@dataclass(frozen=True, slots=True)
class FsspecReader:
    """A `SampleReader` of local paths, fsspec URIs and the URIs of `container_uri`. Holds no connections: file systems are
    cached per process."""

    data_root: str | None = None
    """Everything outside of it is refused; None refuses nothing. As `check_data_root` gives it."""
    trusted: tuple[str, ...] = ()
    """URIs that are not confined: remote weights and banks, which the user named himself."""
    code: str | None = None
    """The one source written in Python whose items are read, as `item_source` gives it; no listing can name another."""

    def read(self, uri: str) -> bytes:
        """The whole object.

        Raises:
            SampleError: With `read_error`, for whatever goes wrong: missing, no permission, a folder, storage down, or
                outside of `data_root`.
        """
        try:
            return self._inside(parse_uri(uri)) if is_container_uri(uri) else self._whole(uri)
        except Exception as error:  # each storage has errors of its own
            raise SampleError(READ_ERROR, f"cannot read {uri}: {_reason(error, uri)}") from error

    def _whole(self, uri: str) -> bytes:
        file = self._resolve(uri)
        if file.fs is None:
            return read_regular(file.path, follow=file.follow_links)
        return _fetched(file.fs, file.path)

    def _inside(self, inside: ContainerUri) -> bytes:
        match inside.kind:
            case "range":
                return self._ranges(inside.file, inside.ranges)[0]
            case "coco-mask":
                annotations = [json.loads(data) for data in self._ranges(inside.file, inside.ranges)]
                return draw_mask(annotations, inside.width, inside.height)
            case "item":
                return item_bytes(inside.file, inside.row, self.code)
            case _:
                return self._image(self._cell(inside), inside.file)

    def _image(self, value: Any, file: str) -> bytes:
        """The bytes in a cell, which is binary or, as Hugging Face writes it, has `bytes`, or a `path` beside the file."""
        if isinstance(value, dict):
            path = value.get("path")
            if value.get("bytes") is None and path:
                return self._whole(path if re.match(r"/|[\w.+-]+::?//?", path) else f"{file.rpartition('/')[0]}/{path}")
            value = value.get("bytes")
        if value is None:
            raise SampleError(READ_ERROR, "the cell is empty")
        return bytes(value)

    def _ranges(self, file: str, ranges: tuple[Range, ...]) -> list[bytes]:
        if sum(length for _, length in ranges) > LARGEST:
            raise SampleError(READ_ERROR, f"more than the limit of {LARGEST} bytes; scale the image down")
        place = self._resolve(file)
        if place.fs is None:
            return read_within(place.path, ranges, follow=place.follow_links)
        pieces = [_fetched(place.fs, place.path, offset, offset + length) for offset, length in ranges]
        if any(len(data) != length for data, (_, length) in zip(pieces, ranges, strict=True)):
            raise SampleError(READ_ERROR, f"{file} is shorter than when it was listed")
        return pieces

    def _cell(self, inside: ContainerUri) -> Any:
        file = self._resolve(inside.file)
        fs, path, follow = file.fs, file.path, file.follow_links
        if fs is None:
            version = check_regular(path, follow=follow)
            return cell(inside, f"{path}@{version}", lambda: _opened(path, inside.kind, follow))
        return cell(inside, fs.unstrip_protocol(path), lambda: cast(IO[bytes], fs.open(path, "rb")))

    def _resolve(self, uri: str) -> ResolvedFile:
        """Where the file is, held against the data root: the one place that decides what may be read.

        Raises:
            SampleError: If it lies outside of the data root.
            OSError: If it lies inside and is not there.
        """
        if self.data_root is not None and uri not in self.trusted:
            confinement = Confinement(self.data_root)
            path = confinement.path_of(uri)
            # of a remote root the root's own server, never one that the uri names
            return ResolvedFile(
                path, None if confinement.is_local else _locate(confinement.root)[0], follow_links=False
            )
        if uri.startswith(("/", "file:///")):  # nothing in a local path means anything to fsspec, not even `::`
            return ResolvedFile(uri.removeprefix("file://"), None, follow_links=True)
        fs, path = _locate(uri)
        return ResolvedFile(path, fs, follow_links=True)


def _opened(path: str, kind: str, follow: bool) -> IO[bytes]:
    """Arrow files are mapped, so that a cell costs its own pages only."""
    return cast(IO[bytes], pa.memory_map(path)) if kind == "arrow" else open_regular(path, follow=follow)


def _fetched(fs: AbstractFileSystem, path: str, start: int | None = None, end: int | None = None) -> bytes:
    """The object or a part of it, asked for again while the storage is busy or down for a moment: an error row stays longer
    than that."""
    try:
        if end is None:
            return with_retries(lambda: bytes_of(fs, path), f"read {path}")
        return with_retries(lambda: cast(bytes, fs.cat_file(path, start=start, end=end)), f"read {path}")
    except StorageError as error:
        raise error.__cause__ or error from None


def _locate(uri: str) -> tuple[AbstractFileSystem, str]:
    scheme, separator, rest = uri.partition("://")
    if not separator or "::" in uri:
        return locate(uri)
    fs = _file_system(scheme, rest.partition("/")[0], os.getpid())
    return fs, cast(str, fs._strip_protocol(uri))


@functools.lru_cache(maxsize=64)
def _file_system(scheme: str, host: str, process: int) -> AbstractFileSystem:
    """One file system per server and process: fsspec's own cache has one per thread, each with its own connections."""
    return locate(f"{scheme}://{host}/")[0]


def _reason(error: Exception, uri: str) -> str:
    if isinstance(error, FileNotFoundError):
        odd = re.search(r"\\x[0-9a-f]{2}", uri)
        return "no such file" + ("; rename files whose names are not UTF-8" if odd else "")
    if isinstance(error, SampleError | UsageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {error}"
