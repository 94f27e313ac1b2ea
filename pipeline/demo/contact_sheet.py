"""The demo's contact sheet: a row per class, each image beside the map that explains its prediction.

Drawn with Pillow alone. A white line is the outline of the object, which the explanation never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ..pictures.overlay import draw_overlay
from .findings import Group, SeenImage, percent

TILE = 132
GAP = 14
CAPTION = 22
LEFT = 176
TOP = 92
ACROSS = 5
"""Images of a class."""
PAPER, INK, FAINT, RULE = "#ffffff", "#1c1e26", "#757b8c", "#e4e6ec"
GOOD, BAD, TINT = "#2f7d4f", "#c0392b", "#fdf1ee"


@dataclass(frozen=True, eq=False, slots=True)
class Panel:
    """What one cell of the sheet shows."""

    seen: SeenImage
    image: Image.Image
    map: Float[np.ndarray, "height width"]
    truth: Bool[np.ndarray, "image_height image_width"]


def draw_contact_sheet(rows: Sequence[tuple[Group, Sequence[Panel]]], title: str, subtitle: str) -> Image.Image:
    """One picture of all rows, each a class with up to five panels; classes below their chance baseline are tinted."""
    pair = 2 * TILE + 2
    width = LEFT + ACROSS * (pair + GAP) + GAP
    height = TOP + len(rows) * (TILE + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP + 6, 18), title, INK, _font(26))
    draw.text((GAP + 6, 56), subtitle, FAINT, _font(15))
    for number, (group, panels) in enumerate(rows):
        y = TOP + number * (TILE + CAPTION + GAP)
        _class_label(draw, group, y, width)
        for place, panel in enumerate(panels[:ACROSS]):
            _panel(sheet, draw, panel, LEFT + place * (pair + GAP), y)
    return sheet


def _class_label(draw: ImageDraw.ImageDraw, group: Group, y: int, width: int) -> None:
    """Name and means of a class, and a bar: mean EBPG against what a random map has."""
    bottom, warned = y + TILE + CAPTION, group.ebpg < group.chance
    if warned:
        draw.rectangle((0, y - GAP // 2, width, bottom + GAP // 2 - 1), TINT)
    draw.line((0, y - GAP // 2, width, y - GAP // 2), RULE)
    x, end = GAP + 6, LEFT - 22
    draw.text((x, y + 4), group.name, INK, _font(21))
    draw.text((x, y + 36), f"{percent(group.accuracy)} correct", FAINT, _font(14))
    draw.text((x, y + 56), f"EBPG {group.ebpg:.2f}", BAD if warned else INK, _font(14))
    draw.rectangle((x, y + 80, end, y + 88), RULE)
    draw.rectangle((x, y + 80, x + round(group.ebpg * (end - x)), y + 88), BAD if warned else GOOD)
    chance = x + round(group.chance * (end - x))
    draw.line((chance, y + 76, chance, y + 92), INK, 2)
    draw.text((x, y + 96), f"| random map {group.chance:.2f}", FAINT, _font(13))


def _panel(sheet: Image.Image, draw: ImageDraw.ImageDraw, panel: Panel, x: int, y: int) -> None:
    """Image and overlay side by side, prediction and EBPG below."""
    seen, size = panel.seen, (TILE, TILE)
    large = panel.image.resize(size, Image.Resampling.LANCZOS)
    peak = float(panel.map.max())
    scaled = panel.map / peak if peak > 0 else panel.map
    sheet.paste(large, (x, y))
    sheet.paste(_outlined(draw_overlay(large, scaled), panel.truth), (x + TILE + 2, y))
    draw.text((x, y + TILE + 3), seen.prediction, GOOD if seen.correct else BAD, _font(14))
    note = f"EBPG {seen.ebpg:.2f}" if seen.correct else f"labelled {seen.label}, EBPG {seen.ebpg:.2f}"
    draw.text((x + 2 * TILE + 2, y + TILE + 3), note, BAD if seen.off_object else FAINT, _font(14), anchor="ra")


def _outlined(picture: Image.Image, truth: Bool[np.ndarray, "height width"]) -> Image.Image:
    """The picture with the object's outline, one pixel wide."""
    soft = Image.fromarray(truth.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BICUBIC)
    inside = np.asarray(soft) > 127
    core = np.asarray(Image.fromarray(inside.astype(np.uint8)).filter(ImageFilter.MinFilter(3))) > 0
    pixels = np.array(picture)
    pixels[inside & ~core] = 255
    return Image.fromarray(pixels)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
