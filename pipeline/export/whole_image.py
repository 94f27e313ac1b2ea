"""Maps belong to what the network saw; other programs draw on the whole image. From the one to the other."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ...workers.images.geometry import Geometry
from ...workers.images.preprocess import Preprocess
from ..pictures.overlay import fit

LONGEST = 1024
"""Pixels of a map's longer side; the network has seen less detail than that."""
HALF = 0.5
"""A pixel belongs to the map's hot region from this share of its largest value on."""
Box = tuple[float, float, float, float]


def on_whole_image(map_: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The map `(height, width)` of the network's input at its place in the whole image, 0 where the network did not look.

    Returns:
        float32 in the shape of the image, its longer side at most 1024 pixels.
    """
    height, width = geometry.resized
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    window = max(1, round(geometry.size[0] * scale)), max(1, round(geometry.size[1] * scale))
    canvas = Image.new("F", (size[1], size[0]))
    scaled = fit(map_, (window[1], window[0]))
    canvas.paste(Image.fromarray(scaled), (round(geometry.left * scale), round(geometry.top * scale)))
    return np.asarray(canvas).clip(0, 1)


def hot_box(map_: np.ndarray) -> Box | None:
    """The box `(x0, y0, x1, y1)`, in shares of the map's width and height, around the connected region of the largest value in which all are
    at least half of it; None for a map of zeros."""
    from scipy import ndimage

    top = float(map_.max(initial=0.0))
    if not top > 0:
        return None
    labelled: Any = ndimage.label(map_ >= HALF * top)
    regions = labelled[0]
    row, column = np.unravel_index(int(map_.argmax()), map_.shape)
    rows, columns = np.nonzero(regions == regions[row, column])
    height, width = map_.shape
    return (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)


def box_on_image(box: Box, geometry: Geometry) -> Box | None:
    """A box in shares of the network's input as `(x, y, width, height)` in pixels of the image; None if it lies in padding only."""
    (height, width), (resized_height, resized_width) = geometry.source, geometry.resized
    x0, x1 = (
        min(max((side * geometry.size[1] + geometry.left) * width / resized_width, 0.0), width)
        for side in (box[0], box[2])
    )
    y0, y1 = (
        min(max((side * geometry.size[0] + geometry.top) * height / resized_height, 0.0), height)
        for side in (box[1], box[3])
    )
    return (x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def geometry_of(row: Mapping[str, Any], preprocess: Preprocess | None) -> Geometry | None:
    """Where the image of a row went; None where neither the store nor the run tells."""
    if preprocess is None or not row["height"] or not row["width"]:
        return None
    return preprocess.geometry(row["height"], row["width"])


def png(map_: np.ndarray) -> bytes:
    """A map in [0, 1] as 8-bit grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(map_.clip(0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
