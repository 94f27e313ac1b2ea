"""Pictures for people: a map in colour over its image, and a file name that cannot leave its directory."""

from __future__ import annotations

import hashlib
import re

import numpy as np
from PIL import Image

INFERNO = (
    (0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110), (113, 25, 110),
    (138, 34, 106), (163, 44, 97), (188, 55, 84), (210, 70, 68), (228, 90, 49), (241, 115, 29),
    (249, 142, 9), (252, 172, 17), (249, 203, 53), (242, 234, 105), (252, 255, 164),
)  # fmt: skip
"""Every 16th colour of matplotlib's perceptually uniform `inferno` (public domain, CC0), dark to bright."""
OPACITY = 0.6
GAP = 4
"""Pixels between the panels of a picture."""


def colour(map_: np.ndarray) -> np.ndarray:
    """`(height, width)` in [0, 1] -> `(height, width, 3)` uint8."""
    stops = np.linspace(0.0, 1.0, len(INFERNO))
    channels = [np.interp(map_, stops, [stop[channel] for stop in INFERNO]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def fit(map_: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map at another `(width, height)`, bilinear, as float32."""
    scaled = Image.fromarray(map_.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(scaled)


def draw_overlay(image: Image.Image, map_: np.ndarray) -> Image.Image:
    """The map in colour over the grey image, so that no colour of the image can be taken for the map."""
    return Image.blend(image.convert("L").convert("RGB"), Image.fromarray(colour(fit(map_, image.size))), OPACITY)


def beside(image: Image.Image, map_: np.ndarray) -> Image.Image:
    """The plain image, and to its right the overlay."""
    picture = Image.new("RGB", (2 * image.width + GAP, image.height), "white")
    picture.paste(image.convert("RGB"), (0, 0))
    picture.paste(draw_overlay(image, map_), (image.width + GAP, 0))
    return picture


def file_name(sample_id: str, suffix: str = ".png") -> str:
    """A readable name that is safe as one path component and differs for every id.

    Everything but letters, digits, `-`, `_` and inner dots becomes `_`, the image's own suffix goes; a short hash of the id
    keeps names apart.
    """
    readable = re.sub(r"\.\w{1,5}$", "", re.sub(r"[^A-Za-z0-9._-]+", "_", sample_id)).strip("._-")[-80:].lstrip("._-")
    return (
        f"{readable or 'sample'}-{hashlib.sha256(sample_id.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}{suffix}"
    )
