"""Bytes of images and masks from wherever fsspec reaches; picklable, because it travels into workers."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from typing import cast

from fsspec import AbstractFileSystem

from ...engine.errors import SampleError, StorageError, UsageError
from ...engine.statuses import READ_ERROR
from ..location import bytes_of, locate
from ..retries import with_retries
from .confinement import Confinement
from .local_file import read_regular


@dataclass(frozen=True, slots=True)
class FsspecReader:
    """A `SampleReader` of local paths and fsspec URIs. Holds no connections: file systems are cached per process."""

    data_root: str | None = None
    """Everything outside of it is refused; None refuses nothing. As `check_data_root` gives it."""
    trusted: str | None = None
    """The one URI that is not confined: remote weights, which the user named himself."""

    def read(self, uri: str) -> bytes:
        """The whole object.

        Raises:
            SampleError: With `read_error`, for whatever goes wrong: missing, no permission, a folder, storage down, or
                outside of `data_root`.
        """
        try:
            if self.data_root is not None and uri != self.trusted:
                return _read_confined(uri, Confinement(self.data_root))
            if uri.startswith(("/", "file:///")):  # nothing in a local path means anything to fsspec, not even `::`
                return read_regular(uri.removeprefix("file://"))
            fs, path = _locate(uri)
            return _fetched(fs, path)
        except Exception as error:  # each storage has errors of its own
            raise SampleError(READ_ERROR, f"cannot read {uri}: {_reason(error, uri)}") from error


def _read_confined(uri: str, confinement: Confinement) -> bytes:
    path = confinement.path_of(uri)
    if confinement.is_local:
        return read_regular(path, follow=False)
    return _fetched(_locate(confinement.root)[0], path)  # never a server that the uri names


def _fetched(fs: AbstractFileSystem, path: str) -> bytes:
    """The object, asked for again while the storage is busy or down for a moment: an error row stays longer than that."""
    try:
        return with_retries(lambda: bytes_of(fs, path), f"read {path}")
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
