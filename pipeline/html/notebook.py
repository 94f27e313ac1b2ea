"""One image of a store as notebooks show it: the image, its map over it for every stored target and method, and what was said."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from PIL import Image

from ...errors import HeatlasError, SampleError, UsageError
from ...workers.images.decode import decode_image
from ..pictures.overlay import GAP, colour, draw_overlay, fit
from ..pictures.stored_images import stored_map, stored_preprocess
from ..sources.reading.reader import FsspecReader
from ..store.object_rows import OBJECT, object_text
from ..store.schema import metric_columns
from ..store.sql import literal
from ..text import class_name
from .texts import figure, named, percent

if TYPE_CHECKING:
    from ..store.reader import StoreReader

MOST = 6
"""Maps side by side."""
SIDE = 224
"""Longer side of a map that stands alone, in pixels."""
FACTS = 8
"""Metrics in the caption."""
COLUMNS = ("id", "uri", "label", "prediction", "target", "method", "confidence", "status", "error")


@dataclass(frozen=True, eq=False)
class Shown:
    """What `Atlas.show` returns; a notebook draws it, `.picture` is the same as a Pillow image."""

    rows: Sequence[Mapping[str, Any]]
    """The rows of one id, the explained prediction first; `map` holds the map `(height, width)` or None."""
    class_names: Sequence[str]
    metrics: Sequence[str]
    image: Image.Image | None
    """As the network sees it; None where it cannot be read any more."""
    missing: str
    """Why there is no image; empty where there is."""

    @property
    def id(self) -> str:
        return str(self.rows[0]["id"])

    @functools.cached_property
    def picture(self) -> Image.Image | None:
        """The image and its overlays side by side; maps alone without an image; None where there is nothing to draw."""
        maps = [row["map"] for row in self.rows if row["map"] is not None][:MOST]
        panels = [] if self.image is None else [self.image, *(draw_overlay(self.image, map_) for map_ in maps)]
        if self.image is None:
            panels = [Image.fromarray(colour(fit(map_, _size(map_.shape)))) for map_ in maps]
        if not panels:
            return None
        width, height = (
            sum(panel.width for panel in panels) + GAP * (len(panels) - 1),
            max(panel.height for panel in panels),
        )
        strip, at = Image.new("RGB", (width, height), "white"), 0
        for panel in panels:
            strip.paste(panel, (at, 0))
            at += panel.width + GAP
        return strip

    def __repr__(self) -> str:
        return f"<Shown {self.id!r}: {'; '.join(self._said(row) for row in self.rows)}>"

    def _repr_png_(self) -> bytes | None:
        if self.picture is None:
            return None
        buffer = io.BytesIO()
        self.picture.save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        png = self._repr_png_()
        drawn = Markup('<img alt="{}" src="data:image/png;base64,{}" style="max-width:100%">').format(
            f"Image and maps of {self.id}", base64.b64encode(png).decode()
        ) if png else Markup("")  # fmt: skip
        lines = [Markup("<div><b>{}</b></div>").format(named(self._said(row), 300)) for row in self.rows]
        lines += [
            Markup('<div style="opacity:.75">{}</div>').format(text) for row in self.rows if (text := self._facts(row))
        ]
        if self.missing:
            lines.append(Markup('<div style="opacity:.75">no image: {}</div>').format(named(self.missing, 300)))
        return str(Markup("<figure style='margin:0'>{}<figcaption>{}<code>{}</code></figcaption></figure>").format(
            drawn, Markup("").join(lines), named(self.id, 300)
        ))  # fmt: skip

    def _said(self, row: Mapping[str, Any]) -> str:
        if row["status"] != "ok":
            return f"{row['method']}: {row['status']}: {row['error'] or 'no text'}"
        others = "".join(
            f", {key} {self._name(row[key])}"
            for key in ("prediction", "label")
            if row[key] not in (None, row["target"])
        )
        return f"{row['method']}: {self._name(row['target'])}{object_text(row)} ({percent(row['confidence'])}){others}"

    def _facts(self, row: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {figure(row[name])}" for name in self.metrics if row[name] is not None)

    def _name(self, index: int) -> str:
        return class_name(self.class_names, index)


def show_row(atlas: StoreReader, identity: str) -> Shown:
    """The rows of one id, ready to be looked at.

    Raises:
        UsageError: If the store does not have the id, or stored no maps at all.
        StorageError: If it cannot be read.
    """
    if not isinstance(identity, str):
        raise UsageError(f"ids are strings, got {identity!r}")
    kind = next((name for name in ("map_png", "map") if name in atlas.schema.names), None)
    metrics = metric_columns(atlas.schema)[:FACTS]
    own = [OBJECT] if OBJECT in atlas.schema.names else []
    rows = atlas.table(
        [*COLUMNS, *own, *metrics, *([kind] if kind else [])], where=f"id = {literal(identity)}"
    ).to_pylist()
    if not rows:
        raise UsageError(f"{identity!r} is not in this store; `.table(columns=['id'])` lists all ids")
    for row in rows:
        row["map"] = stored_map(row.pop(kind), atlas.metadata.get("map", {})) if kind else None
    rows.sort(
        key=lambda row: (
            row["target"] != row["prediction"],
            row["target"] is None,
            row["target"] or 0,
            row.get(OBJECT) or "",
            row["method"],
        )
    )
    image, missing = _image(atlas, rows[0]["uri"])
    return Shown(rows, atlas.class_names, metrics, image, missing)


def _image(atlas: StoreReader, uri: str) -> tuple[Image.Image | None, str]:
    try:
        preprocess = stored_preprocess(atlas.run)
        reader = FsspecReader(atlas.run["fingerprint"].get("data_root"))
        return preprocess.view(decode_image(reader.read(uri), preprocess)), ""
    except (SampleError, HeatlasError) as error:
        return None, str(error)
    except (KeyError, TypeError):
        return None, "the run does not say how images were prepared"


def _size(shape: tuple[int, int]) -> tuple[int, int]:
    scale = SIDE / max(shape)
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))
