"""Draw a picture that explains itself: image, map with the outline of its strongest region, colour scale, caption."""

from __future__ import annotations

import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .outline import strongest_region
from .overlay import GAP, colour, draw_overlay, fit

SMALLEST_SIDE = 224
"""Pixels of the longer side to which a smaller image is enlarged."""
TEXT_PIXELS = 13
LINE_PIXELS = 17
MARGIN_PIXELS = 6
BAR = (90, 8)
"""Width and height of the colour scale in pixels."""
INK, SOFT = (20, 20, 22), (100, 100, 106)


def draw_captioned(image: Image.Image, map_: np.ndarray, caption: str) -> Image.Image:
    """The image, to its right the map over it with the outline of the strongest 20 %, below the scale from 0 to 1 and the caption.

    Args:
        image: As the network sees it; enlarged to 224 pixels if it is smaller.
        map_: `(height, width)` in [0, 1].
        caption: One line, wrapped to the width.
    """
    scale = max(1.0, SMALLEST_SIDE / max(image.size))
    size = round(image.width * scale), round(image.height * scale)
    large = image.convert("RGB").resize(size, Image.Resampling.BILINEAR) if scale > 1 else image.convert("RGB")
    overlay = draw_overlay(large, map_)
    overlay.paste((255, 255, 255), mask=_outline(map_, large.size))
    width = 2 * large.width + GAP
    font = ImageFont.load_default(TEXT_PIXELS)
    lines = textwrap.wrap(caption, max(16, int(width / font.getlength("n"))), max_lines=4) or [""]
    picture = Image.new("RGB", (width, large.height + 2 * MARGIN_PIXELS + LINE_PIXELS * (len(lines) + 1)), "white")
    picture.paste(large, (0, 0))
    picture.paste(overlay, (large.width + GAP, 0))
    draw, top = ImageDraw.Draw(picture), large.height + MARGIN_PIXELS
    for number, line in enumerate(lines):
        draw.text((MARGIN_PIXELS, top + LINE_PIXELS * number), line, INK, font)
    top += LINE_PIXELS * len(lines)
    draw.text((MARGIN_PIXELS, top), "0", SOFT, font)
    ramp = np.linspace(0.0, 1.0, BAR[0])[None].repeat(BAR[1], axis=0)
    picture.paste(Image.fromarray(colour(ramp)), (MARGIN_PIXELS + 12, top + 4))
    draw.text((MARGIN_PIXELS + 16 + BAR[0], top), "1   outline: strongest 20 %", SOFT, font)
    return picture


def _outline(map_: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """White where the border of the strongest region runs, one pixel wide inside it."""
    region = strongest_region(fit(map_, size).clip(0, 1))
    inner = region.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inner &= np.roll(region, step, axis)
    return Image.fromarray(((region & ~inner) * 255).astype(np.uint8))
