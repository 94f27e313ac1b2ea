"""Outline the marked object of an image: the data set is listed again, by its own reader, when the first outline is asked for."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pyarrow.compute as pc

from ...errors import HeatlasError
from ...workers.images.decode import decode_mask, decode_stored
from ...workers.images.ground_truth import truth_from_boxes, truth_from_mask
from ..pictures.outline import outline_path
from ..report.plain_words import LOCALISATION
from ..settings.renamed import current_names
from ..sources import list_source
from ..sources.listing.detection import item_source
from ..sources.listing.options import SourceOptions
from .images import RowImages
from .view_rows import ViewRows

LISTED_ANYHOW = 100_000
"""Images up to which a data set is listed although no metric says that it marks objects."""
MOST_BOXES = 60
Marked = tuple[str, tuple[tuple[float, ...], ...], str | None]
"""URI of the image, boxes, URI of the mask."""
log = logging.getLogger("heatlas.view")


class GroundTruth:
    """What the data set marks, by row number.

    Args:
        table: The rows.
        images: Reads images and masks as the run did.
        trust_code: Whether a source written in Python, which the store names, may be run to list it.
    """

    def __init__(self, table: ViewRows, images: RowImages, *, trust_code: bool = False):
        self._table, self._images, self._trust_code = table, images, trust_code
        self._lock = threading.Lock()
        self._marked: dict[str, Marked] | None = None

    def outline(self, n: int) -> dict[str, Any] | None:
        """The object as the metrics took it, in pixels of the network's input.

        Returns:
            `kind` (mask or boxes), `count`, `height`, `width` and `path` (SVG, in pixels); None where nothing is marked, or the data set
            cannot be listed any more.

        Raises:
            SampleError: If image or mask cannot be read, or do not fit each other.
        """
        rows = self._table.ask("SELECT id FROM items WHERE n = ?", [n])
        with self._lock:
            if self._marked is None:
                self._marked = self._list()
        marked = self._marked.get(rows[0]["id"]) if rows else None
        uri = self._images.uri(n) if marked else ""
        if marked is None or marked[0] != uri or self._images.preprocess is None:
            return None
        _, boxes, mask_uri = marked
        image, orientation = decode_stored(self._images.reader.read(uri))
        geometry = self._images.preprocess.geometry(image.height, image.width)
        if mask_uri is not None:
            mask = decode_mask(self._images.reader.read(mask_uri))
            regions = [truth_from_mask(mask, orientation, geometry)]
        else:
            regions = [truth_from_boxes([box], orientation, geometry) for box in boxes[:MOST_BOXES]]  # pyright: ignore[reportArgumentType]
        height, width = geometry.size
        return {
            "kind": "boxes" if mask_uri is None else "mask", "count": len(regions), "height": height, "width": width,
            "path": "".join(outline_path(region) for region in regions),
        }  # fmt: skip

    def _list(self) -> dict[str, Marked]:
        settings = current_names(self._table.atlas.run["settings"])
        has_metric = any(name in self._table.metrics for name in LOCALISATION)
        if not has_metric and self._table.images > LISTED_ANYHOW:
            return {}
        try:
            data = str(settings["data"])
            if item_source(data) is not None and not self._trust_code:
                return {}
            columns = {
                name: value for name, value in (settings.get("columns") or {}).items() if name != "extra" and value
            }
            options = SourceOptions(
                columns=columns, rows=settings.get("rows", "image"), images=settings.get("images"),
                data_root=self._table.atlas.run["fingerprint"].get("data_root"),
            )  # fmt: skip
            listing = list_source(data, options).listing
        except (HeatlasError, OSError, KeyError, TypeError) as error:
            log.info("objects are not outlined: the data set cannot be listed: %s", error)
            return {}
        if not {"boxes", "mask_uri"} & set(listing.column_names):
            return {}
        wanted = [name for name in ("id", "uri", "boxes", "mask_uri") if name in listing.column_names]
        marks = [pc.field(name).is_valid() for name in wanted[2:]]
        rows = listing.select(wanted).filter(marks[0] | marks[-1]).to_pylist()
        return {
            row["id"]: (row["uri"], tuple(tuple(box) for box in row.get("boxes") or ()), row.get("mask_uri"))
            for row in rows
            if row.get("boxes") or row.get("mask_uri")
        }
