"""Masks of decisions on the images that they are of: in pixels of the upright image, and of no other size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from ...errors import UsageError
from ..text import shown
from .rle import Rle, decode_mask

if TYPE_CHECKING:
    from ..store.reader import StoreReader

WHOLE_SHARE = 0.8
"""Share of the image that a mask covers from which on it stands for the whole image, as a colour cast does."""
Size = tuple[int, int]


def upright_mask(identity: str, rle: Rle, size: Size | None) -> Bool[np.ndarray, "height width"]:
    """A decision's mask.

    Args:
        identity: Of the image, for the message.
        rle: The mask.
        size: Height and width of the upright image; None where nobody knows.

    Raises:
        UsageError: For a mask of another size than the image.
    """
    mask = decode_mask(rle)
    if size is not None and mask.shape != size:
        raise UsageError(
            f"the mask of {shown(identity)} has {mask.shape[1]} x {mask.shape[0]} pixels, the upright image {size[1]} x {size[0]}; "
            "paint it on the upright image"
        )
    return mask


def image_sizes(atlas: StoreReader) -> dict[str, Size]:
    """Height and width of the upright images of a store, by id, where it holds them."""
    table = atlas.table(["id", "height", "width"], "height IS NOT NULL AND width IS NOT NULL")
    return {identity: (height, width) for identity, height, width in zip(*table.to_pydict().values(), strict=True)}
