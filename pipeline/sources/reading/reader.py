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
from .container_uri import Inside, Range, is_inside, parsed
from .drawn_masks import drawn_mask
from .items import item_bytes
from .local_file import LARGEST, check_regular, open_regular, read_regular, read_within


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
            return self._inside(parsed(uri)) if is_inside(uri) else self._whole(uri)
        except Exception as error:  # each storage has errors of its own
            raise SampleError(READ_ERROR, f"cannot read {uri}: {_reason(error, uri)}") from error

    def _whole(self, uri: str) -> bytes:
        if (path := self._local(uri)) is not None:
            return read_regular(path, follow=not self._confines(uri))
        fs, path = self._remote(uri)
        return _fetched(fs, path)

    def _inside(self, inside: Inside) -> bytes:
        match inside.kind:
            case "range":
                return self._ranges(inside.file, inside.ranges)[0]
            case "coco-mask":
                annotations = [json.loads(data) for data in self._ranges(inside.file, inside.ranges)]
                return drawn_mask(annotations, inside.width, inside.height)
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
        if (path := self._local(file)) is not None:
            return read_within(path, ranges, follow=not self._confines(file))
        fs, path = self._remote(file)
        found = [_fetched(fs, path, offset, offset + length) for offset, length in ranges]
        if any(len(data) != length for data, (_, length) in zip(found, ranges, strict=True)):
            raise SampleError(READ_ERROR, f"{file} is shorter than when it was listed")
        return found

    def _cell(self, inside: Inside) -> Any:
        if (path := self._local(inside.file)) is not None:
            follow = not self._confines(inside.file)
            version = check_regular(path, follow=follow)
            return cell(inside, f"{path}@{version}", lambda: _opened(path, inside.kind, follow))
        fs, path = self._remote(inside.file)
        return cell(inside, fs.unstrip_protocol(path), lambda: cast(IO[bytes], fs.open(path, "rb")))

    def _confines(self, uri: str) -> bool:
        return self.data_root is not None and uri not in self.trusted

    def _local(self, uri: str) -> str | None:
        """The local path to open for it; None where it lies elsewhere. Nothing in it means anything to fsspec, not even `::`."""
        if self._confines(uri):
            confinement = Confinement(cast(str, self.data_root))
            return confinement.path_of(uri) if confinement.is_local else None
        return uri.removeprefix("file://") if uri.startswith(("/", "file:///")) else None

    def _remote(self, uri: str) -> tuple[AbstractFileSystem, str]:
        if not self._confines(uri):
            return _locate(uri)
        confinement = Confinement(cast(str, self.data_root))
        path = confinement.path_of(uri)
        return _locate(confinement.root)[0], path  # never a server that the uri names


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
