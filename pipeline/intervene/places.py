"""Regions by name: sides and corners of the image, a box in shares of it, or where the mean map of a cluster is hot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float

from ...errors import UsageError, did_you_mean
from ..decisions.upright_masks import WHOLE_SHARE

Region = Bool[np.ndarray, "height width"]
THIRD = 1 / 3
BORDER = 1 / 8
"""Width of the border over that of the image."""
BOXES: dict[str, tuple[float, float, float, float]] = {
    "upper_left": (0, 0, THIRD, THIRD), "upper_right": (1 - THIRD, 0, 1, THIRD), "lower_left": (0, 1 - THIRD, THIRD, 1),
    "lower_right": (1 - THIRD, 1 - THIRD, 1, 1), "left": (0, 0, THIRD, 1), "right": (1 - THIRD, 0, 1, 1), "top": (0, 0, 1, THIRD),
    "bottom": (0, 1 - THIRD, 1, 1), "centre": (THIRD, THIRD, 1 - THIRD, 1 - THIRD),
}  # fmt: skip
"""`(x0, y0, x1, y1)` as shares of the network's input."""
FRAME = "border"
PLACES = (*BOXES, FRAME)
HALF_MAXIMUM = 0.5
"""Share of a mean map's peak from which on a pixel belongs to where it is hot."""


def box_of(text: str) -> tuple[float, float, float, float] | None:
    """The box that `x0,y0,x1,y1` says; None for a text without commas.

    Raises:
        UsageError: Unless the four are shares of the image in order.
    """
    if "," not in text:
        return None
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"the box {text!r} must be four numbers x0,y0,x1,y1") from None
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(
            f"the box {text!r} must be shares of the network's input, 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, such as 0,0.75,0.25,1"
        )
    return x0, y0, x1, y1


def place_region(text: str, size: tuple[int, int]) -> Region:
    """The pixels of a named place or a box.

    Args:
        text: One of `PLACES`, or `x0,y0,x1,y1`.
        size: Height and width of the network's input.

    Raises:
        UsageError: For an unknown name, or a box without a pixel's centre.
    """
    height, width = size
    down, right = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    if text == FRAME:
        inner = [(along > BORDER) & (along < 1 - BORDER) for along in (down, right)]
        return ~(inner[0][:, None] & inner[1][None, :])
    box = box_of(text) or BOXES.get(text)
    if box is None:
        raise UsageError(
            f"there is no place {text!r}{did_you_mean(text, PLACES)}; choose {', '.join(PLACES)}, or a box x0,y0,x1,y1"
        )
    x0, y0, x1, y1 = box
    region = ((down >= y0) & (down < y1))[:, None] & ((right >= x0) & (right < x1))[None, :]
    if region.mean() > WHOLE_SHARE:
        raise UsageError(
            f"the box {text!r} is {100 * region.mean():.0f} % of the image: pasted into another one it makes that the image it is from, whatever the "
            f"model looks at; take at most {100 * WHOLE_SHARE:.0f} %"
        )
    if not region.any():
        raise UsageError(f"the box {text!r} holds no pixel of {width} x {height}; make it larger")
    return region


def place_text(text: str) -> str:
    """The place in words: `the lower left corner`."""
    words = text.replace("_", " ")
    if "," in text:
        return f"the box {text}"
    if "_" in text:
        return f"the {words} corner"
    return {"centre": "the centre", FRAME: "the border", "top": "the top third", "bottom": "the bottom third"}.get(
        text, f"the {words} third"
    )


def hot_region(mean_map: Float[np.ndarray, "height width"], size: tuple[int, int]) -> Region:
    """Where a mean map has at least half of its peak, at the size of the network's input; empty for a map of zeros."""
    enlarged = enlarged_map(mean_map, size)
    return (enlarged >= HALF_MAXIMUM * enlarged.max()) & (enlarged > 0)


def enlarged_map(values: Float[np.ndarray, "height width"], size: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """A map at the size of the network's input, bilinear."""
    given = torch.from_numpy(np.asarray(values, np.float32))[None, None]
    return F.interpolate(given, size, mode="bilinear", align_corners=False)[0, 0].numpy()


RegionOf = Callable[[str], Region]
"""Gives the region of an image by its id."""
