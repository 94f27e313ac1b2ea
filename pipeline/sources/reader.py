"""Bytes of images and masks from wherever fsspec reaches; picklable, because it travels into workers."""

from __future__ import annotations

import functools
import os
from typing import cast

from fsspec import AbstractFileSystem

from ...engine.errors import SampleError, UsageError
from ...engine.statuses import READ_ERROR
from ..location import locate


class FsspecReader:
    """A `SampleReader` of local paths and fsspec URIs. Holds nothing: file systems are cached per process."""

    def read(self, uri: str) -> bytes:
        """The whole object.

        Raises:
            SampleError: With `read_error`, for whatever goes wrong: missing, no permission, a folder, storage down.
        """
        try:
            if uri.startswith("/"):  # nothing in a local path means anything to fsspec, not even `::`
                with open(uri, "rb") as file:
                    return file.read()
            fs, path = _locate(uri)
            return cast(bytes, fs.cat_file(path))
        except Exception as error:  # each storage has errors of its own
            raise SampleError(READ_ERROR, f"cannot read {uri}: {_reason(error)}") from error


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


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {error}"
