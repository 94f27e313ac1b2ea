"""`heatlas show`: maps over their images as PNG files. What cannot be drawn is said, and the rest goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..engine.errors import SampleError, UsageError
from ..engine.statuses import OK
from ..workers.decode import decode
from ..workers.preprocess import Preprocess
from .atlas import Atlas, open_atlas
from .commit import put
from .location import child, locate
from .overlay import beside, file_name
from .sources.detection import item_source
from .sources.reader import FsspecReader
from .wording import shown

FOLDER = "_show"
COLUMNS = ("id", "uri", "label", "prediction", "target", "score", "status", "error")
SPREAD = """
    SELECT id FROM (
        SELECT id, row_number() OVER (ORDER BY id) - 1 AS place, count(*) OVER () AS total
        FROM (SELECT DISTINCT id FROM atlas WHERE status = 'ok')
    ) WHERE place * {limit} // total <> (place - 1) * {limit} // total OR place = 0 OR total <= {limit} ORDER BY id
"""
"""Ids evenly spread over the store, so that every class folder gets its share."""


def show_overlays(
    out: str,
    *,
    ids: Sequence[str] | None = None,
    limit: int = 12,
    to: str | None = None,
    trust_code: bool = False,
) -> Iterator[tuple[bool, str]]:
    """Draw the image as the network sees it beside its map.

    Args:
        out: Directory or URI of a run's store.
        ids: Samples to draw; None for `limit` of those that have a map, evenly spread.
        limit: At least 1.
        to: Directory or URI for the pictures, by default `_show` in `out`.
        trust_code: Whether the Python code that the run's data set came from may be run again, to get its images.

    Yields:
        Per row of a sample, whether there is a picture now, and a line for the user: its path and what the network said, or why not.

    Raises:
        UsageError: If `limit` is not positive, `ids` is empty, `to` is no place, or the run stored no maps.
        StorageError: If the store cannot be read or pictures cannot be written.
    """
    if limit < 1:
        raise UsageError(f"--limit must be at least 1 picture, got {limit}")
    if ids is not None and not ids:
        raise UsageError(
            "--id names no sample; give at least one id, or leave it out for pictures from all over the run"
        )
    if to is not None:
        locate(to)
    atlas = open_atlas(out)
    preprocess = stored_preprocess(atlas.run)
    reader = reader_of(atlas.run, trust_code=trust_code)
    wanted = list(ids) if ids is not None else [row[0] for row in atlas.sql(SPREAD.format(limit=int(limit))).fetchall()]
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(atlas, wanted):
        rows.setdefault(row["id"], []).append(row)
    if not wanted:
        yield False, f"no row of {out} has a map; see `heatlas status {out}`"
    for identity in wanted:
        if identity not in rows:
            yield False, f"{shown(identity)}: not in {out}"
        several = len(rows.get(identity, ())) > 1
        for row in rows.get(identity, ()):
            try:
                picture = draw(row, preprocess, reader)
            except SampleError as error:
                yield False, f"{shown(identity)}: no picture, {error.status}: {error}"
                continue
            suffix = f"-{row['target']}.png" if several else ".png"
            uri = child(child(out, FOLDER) if to is None else to, file_name(identity, suffix))
            put(uri, picture)
            yield True, f"{uri}  {caption(row, atlas.class_names)}"


def reader_of(run: Mapping[str, Any], *, trust_code: bool = False) -> FsspecReader:
    """Reads a run's images again; what confined the run confines its pictures.

    Args:
        run: Content of its `_run.json`.
        trust_code: Whether a source written in Python, which that file names, may be run.
    """
    code = item_source(run["settings"]["data"]) if trust_code else None
    return FsspecReader(run["fingerprint"].get("data_root"), code=code)


def stored_preprocess(run: Mapping[str, Any]) -> Preprocess:
    """The run's preprocessing, as its fingerprint has it."""
    stored = run["fingerprint"]["preprocess"]
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Preprocess(**values)


def rows_of(atlas: Atlas, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of these ids with the best map there is: the PNG at input resolution, else the numbers.

    Raises:
        UsageError: If the run stored neither.
    """
    kind = next((name for name in ("map_png", "map") if name in atlas.schema.names), None)
    if kind is None:
        raise UsageError(
            f"{atlas.uri} stored no maps (store.map and store.map_png are off), so there is nothing to draw"
        )
    quoted = ", ".join("'" + one.replace("'", "''") + "'" for one in ids) or "NULL"
    rows = atlas.table([*COLUMNS, kind], where=f"id IN ({quoted})").to_pylist()
    shape = atlas.metadata.get("map", {})
    for row in rows:
        row["heat"] = heat_of(row.pop(kind), shape)
    return rows


def heat_of(stored: Any, shape: Mapping[str, Any]) -> np.ndarray | None:
    """The stored map as `(height, width)` float32 in [0, 1]; None for a row without."""
    if stored is None:
        return None
    if isinstance(stored, dict):
        return np.asarray(Image.open(io.BytesIO(stored["bytes"])), dtype=np.float32) / 255
    return np.asarray(stored, dtype=np.float32).reshape(shape["height"], shape["width"])


def draw(row: Mapping[str, Any], preprocess: Preprocess, reader: FsspecReader) -> bytes:
    """The picture as PNG.

    Raises:
        SampleError: If the row has no map, or its image cannot be read any more.
    """
    if row["status"] != OK or row["heat"] is None:
        raise SampleError(row["status"], row["error"] or "the row has no map")
    view = preprocess.view(decode(reader.read(row["uri"])))
    buffer = io.BytesIO()
    beside(view, row["heat"]).save(buffer, "PNG")
    return buffer.getvalue()


def caption(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """`tabby (0.93), label lynx`: the explained class with its probability, and prediction and label where they differ."""

    def name(index: int) -> str:
        return names[index] if index < len(names) else f"class {index}"

    target = row["target"]
    parts = [f"{name(target)} ({row['score']:.2f})"]
    parts += [f"{key} {name(row[key])}" for key in ("prediction", "label") if row[key] not in (None, target)]
    return ", ".join(parts)
