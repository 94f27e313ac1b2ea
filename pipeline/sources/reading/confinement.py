"""Keeps an untrusted manifest inside one folder, or below one URI: `--data-root`.

Checked where a file is read, in the worker, because only there it is known where links lead, and with the same resolved
path that is then opened. Nothing is decoded on the way (`%2e` stays `%2e`), and only one spelling of a local URI counts:
`file:///` in small letters. What an attacker who can move folders inside the root does while we read is beyond it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from fsspec import get_filesystem_class

from ....errors import SampleError, SettingsError
from ....statuses import READ_ERROR
from ...storage.location import locate

REMOTE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Schemes of object stores, whose names are plain text: no links, no redirects, no `..`."""


def check_data_root(data_root: str | None) -> str | None:
    """The root as it means the same on every worker; None stays None, which confines nothing.

    Raises:
        SettingsError: If it is no folder, or a URI of a kind that cannot be confined.
        UsageError: If the package for its scheme is not installed.
    """
    if data_root is None:
        return None
    scheme, separator, rest = data_root.partition("://")
    if separator and scheme in REMOTE and rest.strip("/") and "::" not in data_root:
        locate(data_root)  # complains where the package for it is missing
        return data_root.rstrip("/")
    if data_root and not separator:
        path = os.path.abspath(os.path.expanduser(data_root))
        if os.path.isdir(path):
            return path
    raise SettingsError(
        f"--data-root {data_root or repr(data_root)} is not a folder here; give one, or a URI that begins with one of "
        f"{', '.join(f'{name}://' for name in REMOTE)}"
    )


@dataclass(frozen=True, slots=True)
class Confinement:
    """Decides what of a manifest may be read."""

    root: str
    """As `check_data_root` gave it."""

    @property
    def is_local(self) -> bool:
        return "://" not in self.root

    def path_of(self, uri: str) -> str:
        """The path to read instead of `uri`: free of links where local, else in the file system of the root.

        Raises:
            SampleError: With `read_error`, if it lies outside.
            OSError: If it lies inside and is not there.
        """
        path = self._local(uri) if self.is_local else self._remote(uri)
        if path is None:
            raise SampleError(READ_ERROR, f"refused, because it lies outside of the data root {self.root}")
        return path

    def _local(self, uri: str) -> str | None:
        path = uri.removeprefix("file://")
        if not path.startswith("/") or "\0" in path:
            return None
        try:
            real = os.path.realpath(path, strict=True)
        except OSError:
            if self._holds(os.path.realpath(path)):
                raise
            return None  # whether there is a file out there is not told
        return real if self._holds(real) else None

    def _holds(self, real: str) -> bool:
        root = os.path.realpath(self.root)
        return os.path.commonpath((root, real)) == root

    def _remote(self, uri: str) -> str | None:
        kind = get_filesystem_class(self.root.partition("://")[0])
        schemes = (kind.protocol,) if isinstance(kind.protocol, str) else kind.protocol
        scheme, separator, _ = uri.partition("://")
        if not separator or scheme not in schemes or "::" in uri:
            return None
        path, root = (str(kind._strip_protocol(text)) for text in (uri, self.root))
        inside = path.startswith(f"{root}/") and not {".", ".."} & set(path.split("/"))
        return path if inside else None
