"""Ground truth at network-input size, from boxes or a mask given in pixels of the stored file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from ...errors import SampleError
from ...statuses import TRUTH_ERROR
from ..samples import Box
from .exif import stored_size, upright_box, upright_mask
from .geometry import Geometry


def truth_from_boxes(boxes: Sequence[Box], orientation: int, geometry: Geometry) -> Bool[np.ndarray, "height width"]:
    """The union of the boxes: True where a pixel's centre lies inside one, after clipping to the image.

    All False where the boxes lie outside the centre crop.

    Raises:
        SampleError: With `truth_error`, for a box that is NaN, inverted, empty, or wholly outside the image.
    """
    height, width = stored_size(*geometry.source, orientation)
    truth = np.zeros(geometry.size, dtype=bool)
    centres_y, centres_x = (np.arange(side) + 0.5 for side in geometry.size)
    for box in boxes:
        clipped = _clipped(box, height, width)
        x0, y0, x1, y1 = geometry.box(upright_box(clipped, orientation, height, width))
        rows, columns = (centres_y >= y0) & (centres_y < y1), (centres_x >= x0) & (centres_x < x1)
        truth |= rows[:, None] & columns[None, :]
    return truth


def truth_from_mask(
    mask: Bool[np.ndarray, "height width"], orientation: int, geometry: Geometry
) -> Bool[np.ndarray, "height_out width_out"]:
    """The mask, each pixel taken from under its centre.

    Raises:
        SampleError: With `truth_error`, when the mask has not the size of the stored image.
    """
    height, width = stored_size(*geometry.source, orientation)
    if mask.shape != (height, width):
        raise SampleError(
            TRUTH_ERROR,
            f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image is stored with {width} x {height}; "
            "they must agree",
        )
    return geometry.mask(upright_mask(mask, orientation))


def _clipped(box: Box, height: int, width: int) -> Box:
    if not all(map(math.isfinite, box)):
        raise SampleError(TRUTH_ERROR, f"box {list(box)} is not finite")
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise SampleError(TRUTH_ERROR, f"box {list(box)} is empty or inverted: it must be x0 < x1 and y0 < y1")
    x0, x1 = max(x0, 0.0), min(x1, float(width))
    y0, y1 = max(y0, 0.0), min(y1, float(height))
    if x1 <= x0 or y1 <= y0:
        raise SampleError(TRUTH_ERROR, f"box {list(box)} lies outside its image of {width} x {height} pixels")
    return x0, y0, x1, y1
