"""Where an export goes: it appears whole under its name or not at all, and never in the place of somebody else's files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ...errors import StorageError, UsageError
from ..storage.location import is_local, locate

MARKER = "heatlas-export.json"
"""In every folder that an export wrote: what it is, and the permission to replace it."""


@contextlib.contextmanager
def staged(place: str, kind: Literal["file", "folder"], facts: Mapping[str, Any], *, overwrite: bool) -> Iterator[Path]:
    """A path to write to, which becomes `place` at the end; after an error or Ctrl-C it is gone.

    Args:
        place: Local path.
        kind: What will be written: the path is that of a file to be, or of an empty folder.
        facts: JSON values about the export; a folder keeps them in its marker.
        overwrite: Whether an older export at `place` may be replaced.

    Raises:
        UsageError: If something is there that must not be replaced, or `place` is no local path.
        StorageError: If it cannot be written.
    """
    final = checked(place, kind, overwrite=overwrite)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        sweep(final)
        path = final.with_name(f".{final.name[:80]}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            if kind == "folder":
                path.mkdir()
            yield path
            if kind == "folder":
                (path / MARKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            _publish(path, checked(place, kind, overwrite=overwrite))
        finally:
            _delete(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {place}: {type(error).__name__}: {error}; nothing of this export is left there"
        ) from error


def checked(place: str, kind: Literal["file", "folder"], *, overwrite: bool) -> Path:
    """The path, if an export of that kind may stand there.

    Raises:
        UsageError: Saying why not.
    """
    fs, path = locate(place)
    if not is_local(fs):
        raise UsageError(
            f"--out {place}: exports are written to local paths only; write it here and copy it there with the store's own tool"
        )
    final = Path(path)
    if not final.name:
        raise UsageError(f"--out {place} names no {kind}; give a path that ends in a name")
    if not os.path.lexists(final):
        return final
    if kind == "file" and final.is_dir():
        raise UsageError(f"--out {place} is a folder and this format is one file; give the file a name in it")
    if kind == "folder" and not final.is_dir():
        raise UsageError(f"--out {place} is a file and this format is a folder; give another name")
    if not overwrite:
        raise UsageError(f"--out {place} is there already; choose another name, or --overwrite to replace it")
    if kind == "folder" and any(final.iterdir()) and not (final / MARKER).is_file():
        raise UsageError(
            f"--out {place} is not empty and no heatlas export (it has no {MARKER}), so --overwrite does not replace it; "
            "choose another name"
        )
    return final


def _publish(path: Path, final: Path) -> None:
    if path.is_dir() and final.is_dir():  # a folder cannot be renamed over another one that has files
        old = path.with_suffix(".old.tmp")
        os.rename(final, old)
        os.rename(path, final)
        _delete(old)
    else:
        os.replace(path, final)


def sweep(final: Path) -> None:
    """Delete what killed exports to the same place, on this machine, have left."""
    for path in final.parent.glob(f".{_literal(final.name[:80])}.*.tmp"):
        host, _, pid = (
            path.name.removeprefix(f".{final.name[:80]}.").split(".tmp")[0].rpartition(".")[0].rpartition(".")
        )
        if host == socket.gethostname() and pid.isdigit() and not _alive(int(pid)):
            _delete(path)


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
