"""Ground truth at network-input size, from boxes or a mask given in pixels of the stored file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from ...errors import SampleError
from ...statuses import TRUTH_ERROR
from ..samples import Box, Sample
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


def drawn_boxes(sample: Sample, stored: tuple[int, int], upright: tuple[int, int]) -> Sequence[Box]:
    """The sample's boxes in pixels of the stored file, without those that cover nothing.

    Args:
        sample: Says for which width and height its boxes were drawn.
        stored: Height and width of the stored file.
        upright: Those of the upright image.

    Raises:
        SampleError: With `truth_error`, for boxes that were drawn on a picture of another size, unless they are to be scaled.
    """
    boxes = [box for box in sample.boxes if box[0] != box[2] and box[1] != box[3]]
    if sample.drawn_on is None or not boxes:
        return boxes
    width, height = sample.drawn_on
    if sample.scale_truth:
        scale_x, scale_y = stored[1] / width, stored[0] / height
        return [(x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y) for x0, y0, x1, y1 in boxes]
    if (height, width) not in (stored, upright):
        raise SampleError(TRUTH_ERROR, other_size(sample.drawn_on, stored))
    return boxes


def other_size(drawn_on: tuple[int, int], stored: tuple[int, int]) -> str:
    """What is said of boxes that were drawn on a picture of another size."""
    return (
        f"the boxes were drawn on a picture of {drawn_on[0]} x {drawn_on[1]} pixels, the image has {stored[1]} x {stored[0]}: scale them "
        "with --labels.boxes scaled, or say that they are in the image's own pixels with --labels.boxes pixels"
    )


def scaled_mask(mask: Bool[np.ndarray, "height width"], stored: tuple[int, int]) -> np.ndarray:
    """The mask at the size of the stored file, each pixel taken from under its centre."""
    rows, columns = (
        (2 * np.arange(side) + 1) * own // (2 * side) for side, own in zip(stored, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


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
