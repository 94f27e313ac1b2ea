"""Pictures: the image as the network saw it, and beside it the map over it. `index.jsonl` says which file is whose."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ...errors import SampleError, UsageError
from ...statuses import OK
from ..pictures.overlay import file_name
from ..pictures.show import caption, draw
from .chosen import EXPLAINED, Chosen

INDEX = "index.jsonl"
WANTED = (*EXPLAINED, "error")
FLAT = 5000
"""Files that may lie in one folder; more of them go into 256 subfolders."""


def write_overlays(chosen: Chosen, path: Path) -> int:
    """Write a PNG for every chosen row that has a map, named after its id.

    Returns:
        Pictures.

    Raises:
        UsageError: If columns were asked for, or the run stored no maps or does not say how images were prepared.
    """
    if chosen.columns is not None:
        raise UsageError("--columns has no meaning for --format overlays, whose pictures have none; leave it out")
    map_column = next(iter(chosen.has("map_png", "map")), None)
    preprocess = chosen.preprocess
    if map_column is None or preprocess is None:
        raise UsageError(
            f"{chosen.atlas.uri} stored no maps, or not how its images were prepared, so there is nothing to draw"
        )
    reader = chosen.reader
    names, taken = FileNames(chosen.count()), 0
    missing: dict[str, int] = {}
    with open(path / INDEX, "w", encoding="utf-8") as index:
        for facts, values in chosen.rows(chosen.has(*WANTED), map_column):
            row = {**facts, "map": values}
            entry: dict[str, Any] = {
                "file": None,
                **{name: row.get(name) for name in ("id", "target", "object_id", "method", "status", "error")},
            }
            try:
                picture = draw(row, preprocess, reader)
            except SampleError as error:
                missing[error.status] = missing.get(error.status, 0) + 1
                entry |= {"error": str(error)}
            else:
                name = names.new(row["id"], row["target"], row["method"], row.get("object_id"))
                place = path / Path(name).parent
                place.mkdir(exist_ok=True)
                (path / name).write_bytes(picture)
                entry |= {"file": name, "caption": caption(row, chosen.names)}
                taken += 1
            index.write(json.dumps(entry) + "\n")
    for status, count in sorted(missing.items()):
        why = (
            "could not be read any more"
            if status != OK and status.endswith("read_error")
            else f"have no picture ({status})"
        )
        chosen.notes.append(f"{count} rows {why}; see {INDEX}")
    return taken


class FileNames:
    """Names below the export's folder: safe on every file system, one for every row, the same again for the same rows.

    Args:
        count: How many there will be.
    """

    def __init__(self, count: int) -> None:
        self._digits = 0 if count <= FLAT else 2
        self._taken: set[bytes] = set()

    def new(self, identity: str, target: int | None, method: str, object_id: str | None = None) -> str:
        """`cat-0001-8a1b2c3d.png`, or `3f/cat-0001-8a1b2c3d.png`: no path of the id in it, nothing that a shell or a file system could take for more than a name."""
        digest = hashlib.sha256(
            json.dumps([identity, target, method, *([] if object_id is None else [object_id])]).encode()
        ).hexdigest()
        stem = f"{digest[: self._digits]}/".lstrip("/") + file_name(identity, "")
        name = f"{stem}.png"
        if not self._take(name):  # another row of the same id, or one of the rare ids that look alike after all
            name = f"{stem}-{target}-{digest[:24]}.png"
            self._take(name)
        return name

    def _take(self, name: str) -> bool:
        key = hashlib.sha256(name.casefold().encode()).digest()[:16]  # some file systems do not tell A from a
        new = key not in self._taken
        self._taken.add(key)
        return new
