"""COCO segmentations as masks: polygons, and run lengths plain or compressed. A pixel belongs to a polygon if its centre lies
inside, which is also what a box means here; even-odd where a polygon crosses itself."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from ....errors import SampleError
from ....statuses import TRUTH_ERROR
from ...run_lengths import mask_of_runs, read_runs

Mask = Bool[np.ndarray, "height width"]


def draw_mask(annotations: Sequence[Mapping[str, Any]], width: int, height: int) -> bytes:
    """The union of the annotations' segmentations as a PNG, white on black; an annotation without one counts as its box.

    Raises:
        SampleError: With `truth_error`, for what cannot be drawn, or an image of more pixels than Pillow allows.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if width * height < 1 or (limit is not None and width * height > limit):
        raise SampleError(TRUTH_ERROR, f"a mask of {width} x {height} pixels is outside the limit of 1 to {limit}")
    mask = np.zeros((height, width), dtype=bool)
    for annotation in annotations:
        mask |= _annotation_mask(annotation, width, height)
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _annotation_mask(annotation: Mapping[str, Any], width: int, height: int) -> Mask:
    segmentation = annotation.get("segmentation")
    try:
        if isinstance(segmentation, Mapping):
            return run_length_mask(segmentation, width, height)
        if not segmentation:
            x, y, across, down = map(float, annotation["bbox"])
            segmentation = [[x, y, x + across, y, x + across, y + down, x, y + down]]
        mask = np.zeros((height, width), dtype=bool)
        for polygon in segmentation:
            mask |= polygon_mask(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), width, height)
        return mask
    except (TypeError, ValueError, KeyError) as error:
        raise SampleError(
            TRUTH_ERROR, f"the segmentation of annotation {annotation.get('id')} cannot be drawn: {error}"
        ) from error


def polygon_mask(points: np.ndarray, width: int, height: int) -> Mask:
    """The pixels whose centres lie inside one polygon.

    Args:
        points: `(point, 2)`, x and y in pixels from the upper left corner of the image.
        width: Of the image, in pixels.
        height: Of the image, in pixels.

    Raises:
        ValueError: For a point that is not finite.
    """
    if not np.isfinite(points).all():
        raise ValueError("a point is not finite")
    # each edge turns the pixels to its right inside out on the rows whose centres it crosses; what is turned oddly often is inside
    turned = np.zeros((height, width + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        first, last = (max(0, min(height, math.ceil(edge - 0.5))) for edge in sorted((y0, y1)))
        rows = np.arange(first, last)
        crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
        np.add.at(turned, (rows, columns), 1)
    return np.cumsum(turned[:, :-1], axis=1) % 2 == 1


def run_length_mask(encoded: Mapping[str, Any], width: int, height: int) -> Mask:
    """A mask from run lengths: down the columns, empty pixels first.

    Args:
        encoded: `size` (height, width) and `counts`, a list of numbers or COCO's compressed text.
        width: Of the image, in pixels.
        height: Of the image, in pixels.

    Raises:
        ValueError: If the size is not the image's, or the lengths do not fill it.
    """
    if list(encoded["size"]) != [height, width]:
        raise ValueError(f"its size is {encoded['size']}, the image's [{height}, {width}]")
    return mask_of_runs(read_runs(encoded["counts"], height, width), height, width)
