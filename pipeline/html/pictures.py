"""Pictures inside a page, each stored once however often it is shown, and never more bytes of them than were granted."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..pictures.outline import LARGEST_SIDE, outline_path, strongest_region
from ..pictures.overlay import colour, fit

LONGEST_SIDE = 224
QUALITY = 78
MAP_QUALITY = 84


@dataclass(frozen=True)
class Stored:
    """A picture that the page holds."""

    name: str
    """Its id in the page."""
    source: str
    """A `data:` URI."""
    width: int
    height: int
    outline: str = ""
    """Border of a map's strongest region as an SVG path, in units of `cells`; empty for an image."""
    cells: tuple[int, int] = (1, 1)
    """Columns and rows of the outlined map."""


class Pictures:
    """All pictures of one page.

    Args:
        limit: Bytes that they may take in the page; what comes afterwards is refused.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.size = 0
        self.refused = 0
        """How many did not find room."""
        self._stored: dict[Hashable, Stored] = {}

    @property
    def stored(self) -> list[Stored]:
        return list(self._stored.values())

    def image(self, key: Hashable, image: Image.Image, longest: int = LONGEST_SIDE) -> Stored | None:
        """Keep a photograph, no larger than `longest`; None where there is no room."""
        return self.known(key) or self._keep(key, smaller(image.convert("RGB"), longest), QUALITY)

    def map(self, key: Hashable, map_: np.ndarray, longest: int = LONGEST_SIDE) -> Stored | None:
        """Keep a map `(height, width)` in [0, 1] in colour, brought to at least its own and at most `longest` pixels a side."""
        return self.known(key) or self._keep(key, map_picture(map_, longest), MAP_QUALITY, map_)

    def known(self, key: Hashable) -> Stored | None:
        return self._stored.get(key)

    def _keep(self, key: Hashable, image: Image.Image, quality: int, map_: np.ndarray | None = None) -> Stored | None:
        source = data_uri(image, quality)
        path, cells = ("", (1, 1)) if map_ is None else _outlined(map_)
        if self.size + len(source) + len(path) > self.limit:
            self.refused += 1
            return None
        self.size += len(source) + len(path)
        self._stored[key] = picture = Stored(f"p{len(self._stored)}", source, image.width, image.height, path, cells)
        return picture


def _outlined(map_: np.ndarray) -> tuple[str, tuple[int, int]]:
    """The outline of a map, and the columns and rows in whose units it is."""
    scale = min(1.0, LARGEST_SIDE / max(map_.shape))
    rows, columns = (max(1, round(side * scale)) for side in map_.shape)
    reduced = np.asarray(map_, np.float32) if scale == 1.0 else fit(np.asarray(map_, np.float32), (columns, rows))
    return outline_path(strongest_region(reduced)), (columns, rows)


def map_picture(map_: np.ndarray, longest: int) -> Image.Image:
    """The map in colour. Small maps are enlarged before they are coloured, which browsers would do after it."""
    height, width = map_.shape
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(colour(np.clip(fit(map_, size), 0, 1)))


def smaller(image: Image.Image, longest: int) -> Image.Image:
    """The image, its longer side at most `longest` pixels."""
    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def data_uri(image: Image.Image, quality: int) -> str:
    """The image as WebP, which every browser shows, in a `data:` URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
