"""Places that a run's settings name, held against each other before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable

from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from ...errors import DataError, UsageError
from ...workers.models.load import remote_file
from ..settings.run import Settings
from ..sources.listing.detection import place_named
from ..sources.listing.place import could_match
from ..storage.location import is_local, is_path, locate


def named_by_user(settings: Settings) -> tuple[str, ...]:
    """Remote files that are read whatever `data_root` confines."""
    return tuple(
        place
        for place in (remote_file(settings.model), settings.bank, settings.explainer)
        if place is not None and "://" in place
    )


def refuse_out_among_images(settings: Settings) -> None:
    """Pictures that `heatlas show` writes into a store must not turn up among the samples when the run is resumed.

    Raises:
        DataError: If `out` lies in the folder `data`.
    """
    place = place_named(settings.data)
    if place is None:
        return
    (data_fs, data), (out_fs, out) = _real_place(place), _real_place(settings.out)
    inside = f"{out.rstrip('/')}/".startswith(f"{data.rstrip('/')}/") or could_match(
        data, f"{out.rstrip('/')}/_show/x.png"
    )
    if inside and data_fs.to_dict() == out_fs.to_dict() and not data_fs.isfile(data):
        raise DataError(
            f"--out {settings.out} lies in the image folder --data {settings.data}; choose a place outside of it"
        )


def refuse_out_behind_links(settings: Settings, uris: Iterable[str]) -> None:
    """As `refuse_out_among_images`, where a link in the image folder leads to a folder that holds `out`.

    Args:
        settings: Say `out`.
        uris: Of the images, by the way on which an image folder led to them.

    Raises:
        DataError: If `out` lies in one of them.
    """
    out_fs, out = _real_place(settings.out)
    if not is_local(out_fs):
        return
    for folder in sorted({uri.rpartition("/")[0] for uri in uris if is_path(uri)}):
        real = os.path.realpath(folder)
        if f"{out}/".startswith(f"{real.rstrip('/')}/"):
            raise DataError(
                f"--out {settings.out} lies in {folder}, a folder of --data {settings.data}; choose a place outside of it"
            )


def _real_place(uri: str) -> tuple[AbstractFileSystem, str]:
    """As `locate`, with links and `..` resolved in a local path."""
    fs, path = locate(uri)
    return fs, os.path.realpath(path) if is_local(fs) else path


def refuse_private_memory(settings: Settings) -> None:
    """Worker processes would read and write a `memory://` of their own, which nobody else sees and which is lost with them.

    Raises:
        UsageError: If `data`, `out` or `bank` lies there and there are worker processes.
    """
    for name, place in (("data", place_named(settings.data)), ("out", settings.out), ("bank", settings.bank)):
        if place is not None and settings.workers != 0 and isinstance(locate(place)[0], MemoryFileSystem):
            raise UsageError(f"--{name} {place} lies in the memory of this process, which worker processes cannot see; "
                             "use --workers 0, or another place")  # fmt: skip
