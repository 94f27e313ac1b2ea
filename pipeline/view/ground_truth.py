"""Outline the marked object of an image: the data set is listed again, by its own reader, when the first outline is asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
from PIL import Image

from ...errors import HeatlasError
from ...workers.images.decode import decode_input, decode_mask
from ...workers.images.exif import stored_size
from ...workers.images.ground_truth import drawn_boxes, scaled_mask, truth_from_boxes, truth_from_mask
from ...workers.samples import Sample
from ..pictures.outline import outline_path
from ..report.plain_words import LOCALISATION
from ..shards import DRAWN_ON, SCALED_FROM, sample_of_row
from ..sources import list_source
from ..sources.listing.boxes import settle_boxes
from ..sources.listing.detection import item_source
from ..sources.listing.options import SourceOptions
from ..storage.location import same_place
from ..stored_settings import remedy_for_relative_data, settings_of_run
from .images import RowImages
from .view_rows import ViewRows

LISTED_ANYHOW = 100_000
"""Images up to which a data set is listed although no metric says that it marks objects."""
MOST_BOXES = 60


@dataclass(frozen=True)
class MarkedSamples:
    """What a data set marks."""

    by_id: dict[str, Sample] = field(default_factory=dict)
    """Samples with boxes or a mask."""
    reason: str = ""
    """Why there are none, for people; empty where there are some, or the data set just has none."""


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
        self._marked: MarkedSamples | None = None

    def outline(self, n: int) -> dict[str, Any] | None:
        """The object as the metrics took it, in pixels of the network's input.

        Returns:
            `kind` (mask or boxes), `count`, `height`, `width` and `path` (SVG, in pixels). Without an outline `reason`, for people, and
            `everywhere`: whether no image of the store has one. None where the data set marks nothing in this image.

        Raises:
            SampleError: If image or mask cannot be read, or do not fit each other.
        """
        rows = self._table.ask("SELECT id FROM items WHERE n = ?", [n])
        with self._lock:
            if self._marked is None:
                self._marked = self._list()
        if not self._marked.by_id:
            return {"reason": self._marked.reason, "everywhere": True}
        marked, preprocess = self._marked.by_id.get(rows[0]["id"]) if rows else None, self._images.preprocess
        if marked is None:
            return None
        uri = self._images.uri(n)
        if not same_place(marked.uri, uri):
            reason = f"the data set now has this image at {marked.uri}, the run read it from {uri}: its object is not outlined"
            return {"reason": reason, "everywhere": False}
        if preprocess is None:
            reason = "objects are not outlined: the run does not say how images were prepared"
            return {"reason": reason, "everywhere": True}
        image, orientation = decode_input(self._images.reader.read(uri), preprocess)
        size = (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[0], image.shape[1])
        geometry, stored = preprocess.geometry(*size), stored_size(*size, orientation)
        if marked.mask_uri is not None:
            mask = decode_mask(self._images.reader.read(marked.mask_uri))
            mask = scaled_mask(mask, stored) if marked.scale_truth else mask
            regions = [truth_from_mask(mask, orientation, geometry)]
        else:
            boxes = drawn_boxes(marked, stored, size)[:MOST_BOXES]
            regions = [truth_from_boxes([box], orientation, geometry) for box in boxes]
        height, width = geometry.size
        return {
            "kind": "boxes" if marked.mask_uri is None else "mask", "count": len(regions), "height": height, "width": width,
            "path": "".join(outline_path(region) for region in regions),
        }  # fmt: skip

    def _list(self) -> MarkedSamples:
        run = self._table.atlas.run
        settings = settings_of_run(run)
        has_metric = any(name in self._table.metrics for name in LOCALISATION)
        if not has_metric and self._table.images > LISTED_ANYHOW:
            return MarkedSamples(
                reason=f"objects are not looked for in more than {LISTED_ANYHOW:,} images, as no metric says that there are any"
            )
        try:
            data = str(settings["data"])
            if item_source(data) is not None and not self._trust_code:
                return MarkedSamples(
                    reason=f"objects are not outlined: {data} is Python code, which runs with --trust-code only"
                )
            columns = {
                name: value for name, value in (settings.get("columns") or {}).items() if name != "extra" and value
            }
            options = SourceOptions(
                columns=columns, rows=settings.get("rows", "image"), images=settings.get("images"),
                data_root=run["fingerprint"].get("data_root"),
            )  # fmt: skip
            rule = (settings.get("labels") or {}).get("boxes")
            listing, _ = settle_boxes(list_source(data, options).listing, rule)
        except (HeatlasError, OSError, KeyError, TypeError, ValueError) as error:
            remedy = remedy_for_relative_data(run)
            return MarkedSamples(reason=f"objects are not outlined: the data set cannot be listed: {error}{remedy}")
        if not {"boxes", "mask_uri"} & set(listing.column_names):
            return MarkedSamples()
        marks = [pc.field(name).is_valid() for name in ("boxes", "mask_uri") if name in listing.column_names]
        wanted = [
            name for name in ("id", "uri", "boxes", "mask_uri", DRAWN_ON, SCALED_FROM) if name in listing.column_names
        ]
        rows = listing.select(wanted).filter(marks[0] | marks[-1]).to_pylist()
        samples = {
            row["id"]: sample_of_row({**row, "label": None}) for row in rows if row.get("boxes") or row.get("mask_uri")
        }
        if not samples and has_metric:
            return MarkedSamples(reason="objects are not outlined: the data set marks none any more")
        return MarkedSamples(samples)
