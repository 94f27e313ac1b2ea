"""Whose directory is it? `_run.json` says which run owns an output directory, created once and never changed.

The fingerprint holds everything that could change a row. A directory with another fingerprint is refused, because half of
its rows would then mean something else.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Literal, NamedTuple

from ...errors import NoRunError, RunMismatchError, StorageError
from ..storage.atomic_write import put_if_absent
from ..storage.backoff import with_retries
from ..storage.json_object import read_object
from ..storage.location import child, locate, names_in
from .identity import as_stored, differences, remarks
from .run_facts import run_file_faults
from .schema import SCHEMA_VERSION

RUN_FILE = "_run.json"
_OWN_BEFORE_CLAIM = frozenset({RUN_FILE, "_logs"})


def versions() -> dict[str, str]:
    """Versions of what computes rows; read from package metadata, so nothing is imported."""
    packages = ("heatlas", "torch", "torchvision", "pillow")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


class RunClaim(NamedTuple):
    """A directory that is ours."""

    state: Literal["created", "resumed"]
    run: dict[str, Any]
    """What stands in `_run.json`; its fingerprint is what parts must name, also where ours agrees only within a tolerance."""
    remarks: tuple[str, ...] = ()
    """Differences that refuse nothing, for the user to read."""


def claim_run(
    out: str,
    fingerprint: Mapping[str, Any],
    settings: Mapping[str, Any],
    remarks_for_people: Mapping[str, Any] | None = None,
    listing_text: str = "",
    trial: Mapping[str, Any] | None = None,
) -> RunClaim:
    """Make `out` the directory of this run, or find that it is already.

    Args:
        out: Local path or URI.
        fingerprint: JSON-able, may be nested; what must be equal to resume, such as the plan's and the model's digest.
            Library versions are added here.
        settings: The resolved settings, stored for people; not compared.
        remarks_for_people: How the run was prepared, stored as `remarks`; not compared.
        listing_text: How the listing differs from that of the run; said in place of its digests.
        trial: What precision, forward and batch size were chosen by, stored as `trial` for resuming runs and people.

    Raises:
        RunMismatchError: If the directory belongs to another run, naming what differs, or holds something else.
        StorageError: If storage fails.
    """
    ours = stored_fingerprint(fingerprint)
    stored = find_run(out)
    if stored is None:
        _refuse_foreign_content(out)
        run = {"schema_version": SCHEMA_VERSION, "created": datetime.now(UTC).isoformat(timespec="seconds"),
               "fingerprint": ours, "settings": as_stored(settings), "started_in": os.getcwd(),
               **({"remarks": as_stored(remarks_for_people)} if remarks_for_people else {}), **({"trial": as_stored(trial)} if trial else {})}  # fmt: skip
        if put_if_absent(child(out, RUN_FILE), (json.dumps(run, indent=2) + "\n").encode()):
            return RunClaim("created", run)
        stored = read_run(out)  # another driver was first
    _compare(out, stored, ours, listing_text)
    return RunClaim("resumed", stored, tuple(remarks(stored["fingerprint"], ours)))


def stored_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprint as `_run.json` holds it, library versions added."""
    return as_stored({**fingerprint, "versions": versions()})


def read_run(out: str) -> dict[str, Any]:
    """The content of `_run.json`: `schema_version`, `created`, `fingerprint` (with `versions`), `settings`, and `started_in`: the folder that
    relative paths in the settings mean, which stores of older releases do not name.

    Raises:
        NoRunError: If there is no such file.
        StorageError: If it is damaged.
    """
    run = find_run(out)
    if run is None:
        raise NoRunError(f"{out} is not a heatlas store: it has no {RUN_FILE}; give the directory that `heatlas explain --out` "
                           "wrote, not a folder in it or above it")  # fmt: skip
    return run


def find_run(out: str) -> dict[str, Any] | None:
    """As `read_run`, but None where there is no such file."""
    uri, remedy = child(out, RUN_FILE), "restore it from a copy, or choose another --out for a new run"
    try:
        run = read_object(uri, remedy)
    except StorageError as error:
        if isinstance(error.__cause__, NotADirectoryError):
            raise NoRunError(f"{out} is a file, or lies below one; give a directory") from error
        raise
    if run is not None and (faults := run_file_faults(run)):
        raise StorageError(f"{uri} is damaged ({'; '.join(faults)}); {remedy}")
    return run


def _refuse_foreign_content(out: str) -> None:
    """An empty directory is anybody's; one with other people's files is not."""
    fs, path = locate(out)
    names = with_retries(lambda: names_in(fs, path), f"list {out}")
    foreign = [name for name in names if not name.startswith(".") and name not in _OWN_BEFORE_CLAIM]
    if foreign and RUN_FILE not in names:  # it is there if another driver came between our two looks
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise RunMismatchError(f"{out} is not empty and is not a heatlas store: it holds {', '.join(foreign[:3])}{more}; "
                               "choose another --out, or an empty directory")  # fmt: skip


def _compare(out: str, stored: Mapping[str, Any], ours: Mapping[str, Any], listing_text: str) -> None:
    if stored.get("schema_version") != SCHEMA_VERSION:
        raise RunMismatchError(f"{out} has store version {stored.get('schema_version')}, this heatlas writes {SCHEMA_VERSION}; "
                               "choose another --out, or use the heatlas that wrote it")  # fmt: skip
    if lines := differences(stored["fingerprint"], ours):
        added = (
            "; `heatlas evaluate` adds metrics to a run" if any(line.startswith("  metrics:") for line in lines) else ""
        )
        if listing_text:
            lines = [f"  listing: {listing_text}", *(line for line in lines if not line.startswith("  plan."))]
        raise RunMismatchError(f"{out} belongs to another run, which differs in\n" + "\n".join(lines) +
                               f"\nchoose another --out, or restore the stored values{added}; nothing was changed")  # fmt: skip
