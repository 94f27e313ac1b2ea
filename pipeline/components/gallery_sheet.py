"""Draw the images that have most and least of each component of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE_PIXELS = 96
GAP_PIXELS = 6
CAPTION_PIXELS = 22
PAPER, INK, SOFT = "#ffffff", "#1c1e26", "#757b8c"


@dataclass(frozen=True, eq=False)
class GalleryLine:
    """One component."""

    caption: str
    highest: Sequence[Image.Image]
    lowest: Sequence[Image.Image]


def draw_galleries(title: str, lines: Sequence[GalleryLine]) -> Image.Image:
    """One picture: a line per component, the images that have most of it to the left, those that have least to the right."""
    most = max((len(line.highest) + len(line.lowest) for line in lines), default=0)
    step = TILE_PIXELS + GAP_PIXELS
    width, height = max(480, most * step + 4 * GAP_PIXELS), 2 * CAPTION_PIXELS + len(lines) * (step + CAPTION_PIXELS)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((GAP_PIXELS, GAP_PIXELS), title, INK, ImageFont.load_default(17))
    for number, line in enumerate(lines):
        top = 2 * CAPTION_PIXELS + number * (step + CAPTION_PIXELS)
        draw.text((GAP_PIXELS, top - 2), line.caption, SOFT, font)
        for place, image in enumerate([*line.highest, *line.lowest]):
            left = GAP_PIXELS + place * step + (2 * GAP_PIXELS if place >= len(line.highest) else 0)
            sheet.paste(image.convert("RGB").resize((TILE_PIXELS, TILE_PIXELS)), (left, top + CAPTION_PIXELS - 4))
    return sheet
