"""`heatlas show`: maps over their images as PNG files. What cannot be drawn is said, and the rest goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import SampleError, UsageError
from ...statuses import OK
from ...workers.images.decode import decode_image
from ...workers.images.preprocess import Preprocess
from ..sources.reading.reader import FsspecReader
from ..storage.atomic_write import put
from ..storage.location import child, locate
from ..store.object_rows import object_text
from ..store.reader import open_store
from ..text import class_name, harmless, shown
from .captioned import draw_captioned
from .edge_rendering import Edges, appended, edged, edges_from, shown_through
from .overlay import beside, file_name
from .stored_images import reader_of, rows_of, stored_preprocess

FOLDER = "_show"
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
    edges: str | None = None,
) -> Iterator[tuple[bool, str]]:
    """Draw the image as the network sees it beside its map.

    Args:
        out: Directory or URI of a run's store.
        ids: Samples to draw; None for `limit` of those that have a map, evenly spread.
        limit: At least 1.
        to: Directory or URI for the pictures, by default `_show` in `out`.
        trust_code: Whether the Python code that the run's data set came from may be run again, to get its images.
        edges: `sobel`, `canny`, or a file with HED's weights: the map times the image's edges is drawn, and the image seen through it.

    Yields:
        Per row of a sample, whether there is a picture now, and a line for the user: its path and what the network said, or why not.

    Raises:
        UsageError: If `limit` is not positive, `ids` is empty, `to` is no place, there are no such edges, or the run stored no maps.
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
    outlines = None if edges is None else edges_from(edges)
    atlas = open_store(out)
    preprocess = stored_preprocess(atlas.run)
    reader = reader_of(atlas.run, trust_code=trust_code)
    wanted = list(ids) if ids is not None else [row[0] for row in atlas.query_rows(SPREAD.format(limit=int(limit)))]
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
                picture = draw(row, preprocess, reader, atlas.class_names, outlines)
            except SampleError as error:
                yield False, f"{shown(identity)}: no picture, {error.status}: {error}"
                continue
            suffix = (
                "-".join(["", str(row["target"]), *([row["object_id"]] if row.get("object_id") else [])]) + ".png"
                if several
                else ".png"
            )
            uri = child(child(out, FOLDER) if to is None else to, file_name(identity, suffix))
            put(uri, picture)
            yield True, f"{uri}  {caption(row, atlas.class_names)}"


def draw(
    row: Mapping[str, Any],
    preprocess: Preprocess,
    reader: FsspecReader,
    names: Sequence[str] | None = None,
    edges: Edges | None = None,
) -> bytes:
    """The picture as PNG: image and overlay; with `names` of the classes also outline, scale, explained class and id.

    With `edges` the map is multiplied by the image's, and the image seen through it is a third panel.

    Raises:
        SampleError: If the row has no map, or its image cannot be read any more.
    """
    if row["status"] != OK or row["map"] is None:
        raise SampleError(row["status"], row["error"] or "the row has no map")
    view = preprocess.view(decode_image(reader.read(row["uri"]), preprocess))
    buffer = io.BytesIO()
    map_ = row["map"] if edges is None else edged(view, row["map"], edges)
    if names is None:
        picture = beside(view, map_)
    else:
        text = harmless(f"{caption(row, names)}. {row['id']}", lines=False)
        picture = draw_captioned(view, map_, text)
    if edges is not None:
        picture = appended(picture, shown_through(view, map_))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def caption(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """`tabby (0.93), label lynx`: the explained class with its confidence, and prediction and label where they differ."""

    target = row["target"]
    parts = [f"{class_name(names, target)}{object_text(row)} ({row['confidence']:.2f})"]
    parts += [
        f"{key} {class_name(names, row[key])}" for key in ("prediction", "label") if row[key] not in (None, target)
    ]
    return ", ".join(parts)
