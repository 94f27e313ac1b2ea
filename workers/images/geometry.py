"""Where the pixels of an image go when it is brought to the network's input size; for images, boxes and masks alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from PIL import Image

from ..samples import Box

_LARGEST_RESIZED = 1 << 25
"""Pixels up to which the whole image is resized before it is cropped, as torchvision does. Beyond (an image 1 pixel high
and 30 000 wide would grow to 1.5 billion), only what the crop shows is computed, equal to within rounding."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Resize, then cut out a window; the window may reach beyond the resized image, which is padding."""

    source: tuple[int, int]
    """`(height, width)` of the upright image."""
    resized: tuple[int, int]
    """`(height, width)` after scaling."""
    size: tuple[int, int]
    """`(height, width)` of the window, the network's input."""
    top: int
    """First row of the window in the resized image; negative where the window begins in padding."""
    left: int
    """First column of the window in the resized image."""

    def box(self, box: Box) -> Box:
        """A box `(x0, y0, x1, y1)` in pixels of the upright image, in pixels of the window; not clipped."""
        scale_y, scale_x = self.resized[0] / self.source[0], self.resized[1] / self.source[1]
        x0, y0, x1, y1 = box
        return (
            x0 * scale_x - self.left,
            y0 * scale_y - self.top,
            x1 * scale_x - self.left,
            y1 * scale_y - self.top,
        )

    def source_box(self, box: Box) -> Box:
        """A box in pixels of the window, in pixels of the upright image and clipped to it."""
        (height, width), (resized_height, resized_width) = self.source, self.resized
        x0, y0, x1, y1 = box
        across = [min(max((x + self.left) * width / resized_width, 0.0), float(width)) for x in (x0, x1)]
        down = [min(max((y + self.top) * height / resized_height, 0.0), float(height)) for y in (y0, y1)]
        return across[0], down[0], across[1], down[1]

    def mask(self, mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height_out width_out"]:
        """A mask of the upright image at window size: each pixel takes the value under its centre; padding is False."""
        rows, rows_inside = _nearest(self.size[0], self.top, self.resized[0], self.source[0])
        columns, columns_inside = _nearest(self.size[1], self.left, self.resized[1], self.source[1])
        return mask[np.ix_(rows, columns)] & rows_inside[:, None] & columns_inside[None, :]

    def image(self, image: Image.Image, resample: Image.Resampling, fill: Sequence[float]) -> Image.Image:
        """The image at window size, `fill` (one value per band) where the window shows padding."""
        top, left = max(self.top, 0), max(self.left, 0)
        bottom = min(self.top + self.size[0], self.resized[0])
        right = min(self.left + self.size[1], self.resized[1])
        visible = self._resized_part(image, resample, (left, top, right, bottom))
        if visible.size == self.size[::-1]:
            return visible
        canvas = Image.new(image.mode, (self.size[1], self.size[0]), fill[0] if len(fill) == 1 else tuple(fill))
        canvas.paste(visible, (left - self.left, top - self.top))
        return canvas

    def _resized_part(
        self, image: Image.Image, resample: Image.Resampling, part: tuple[int, int, int, int]
    ) -> Image.Image:
        (height, width), (source_height, source_width) = self.resized, self.source
        if height * width <= _LARGEST_RESIZED:
            return image.resize((width, height), resample).crop(part)
        left, top, right, bottom = part
        scale_y, scale_x = source_height / height, source_width / width
        seen = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
        return image.resize((right - left, bottom - top), resample, box=seen)


def centre_offset(full: int, window: int) -> int:
    """Where a centred window begins, rounded as in torchvision's `center_crop` (half to even; padding first)."""
    return round((full - window) / 2) if full >= window else -((window - full) // 2)


def _nearest(count: int, offset: int, resized: int, source: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `count` window positions: the source position under its centre, and whether there is one."""
    positions = np.arange(count) + offset
    inside = (positions >= 0) & (positions < resized)
    # integers: floor((position + 1/2) * source / resized) without rounding errors at pixel edges
    return np.clip((2 * positions + 1) * source // (2 * resized), 0, source - 1), inside
