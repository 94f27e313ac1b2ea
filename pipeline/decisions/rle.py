"""Convert masks to COCO's compressed run lengths and back; foreign run lengths are checked before they are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco

from ...errors import UsageError
from ..run_lengths import mask_of_runs, read_runs

LARGEST_PIXELS = 400_000_000
"""Pixels of a mask that is still decoded."""
Mask = Bool[np.ndarray, "height width"]


class Rle(TypedDict):
    """Run lengths down the columns, empty pixels first, as COCO has them."""

    size: list[int]
    """Height and width in pixels."""
    counts: str
    """COCO's compressed text."""


def encode_mask(mask: Mask) -> Rle:
    """Run lengths of a mask of at least one pixel."""
    height, width = mask.shape
    if not height * width:
        raise UsageError(f"a mask must have at least 1 pixel, got {width} x {height}")
    encoded = cast(Any, coco.encode(np.asfortranarray(mask, dtype=np.uint8)))
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def decode_mask(rle: Mapping[str, Any]) -> Mask:
    """The mask of run lengths, compressed or as a list of numbers.

    Raises:
        UsageError: For text that is not run lengths, or lengths that do not fill the size.
    """
    height, width, runs = _checked_runs(rle)
    return mask_of_runs(runs, height, width)


def checked_rle(rle: Mapping[str, Any]) -> Rle:
    """The run lengths in compressed form, after a check that they fill their size exactly.

    Raises:
        UsageError: As `decode_mask`.
    """
    height, width, runs = _checked_runs(rle)
    compressed = cast(Any, coco.frPyObjects(cast(Any, {"size": [height, width], "counts": runs}), height, width))
    return {"size": [height, width], "counts": compressed["counts"].decode("ascii")}


def _checked_runs(rle: Mapping[str, Any]) -> tuple[int, int, list[int]]:
    """Height, width and run lengths that fill them exactly."""
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError):
        raise UsageError('a mask is run lengths as COCO has them: {"size": [height, width], "counts": "..."}') from None
    if height < 1 or width < 1 or height * width > LARGEST_PIXELS:
        raise UsageError(f"a mask of {width} x {height} pixels is outside the limit of 1 to {LARGEST_PIXELS:,} pixels")
    try:
        runs = read_runs(counts, height, width)
    except ValueError as error:
        raise UsageError(f"the run lengths of a mask of {width} x {height} pixels cannot be read: {error}") from None
    return height, width, runs
