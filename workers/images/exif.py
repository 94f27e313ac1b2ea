"""EXIF orientation, applied alike to an image, its boxes and its mask.

Orientations are the EXIF numbers 1-8; everything else counts as 1, upright. Boxes and masks are annotated in the pixels
of the stored file, so they must turn with the image when a viewer or a decoder turns it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from PIL import ExifTags, Image

from ..samples import Box

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation 1-8 of an opened image; 1 where there is none, or where the EXIF block is corrupt."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(orientation) if orientation in _TRANSPOSE else 1
    except Exception:  # a corrupt EXIF block says nothing about the pixels, and Pillow fails on it in many ways
        return 1


def upright_image(image: Image.Image, orientation: int) -> Image.Image:
    """The image as its camera saw it."""
    return image if orientation == 1 else image.transpose(_TRANSPOSE[orientation])


def stored_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """`(height, width)` of the stored file, given those of the upright image."""
    return (width, height) if orientation >= 5 else (height, width)


def upright_mask(mask: Bool[np.ndarray, "height width"], orientation: int) -> np.ndarray:
    """A mask in stored pixels, turned as its image; orientations 5-8 swap height and width."""
    turned = {
        1: lambda: mask,
        2: lambda: mask[:, ::-1],
        3: lambda: mask[::-1, ::-1],
        4: lambda: mask[::-1],
        5: lambda: mask.T,
        6: lambda: np.rot90(mask, -1),
        7: lambda: mask[::-1, ::-1].T,
        8: lambda: np.rot90(mask, 1),
    }
    return turned[orientation]()


def upright_box(box: Box, orientation: int, height: int, width: int) -> Box:
    """A box in stored pixels, turned as its image; `height` and `width` are those of the stored file."""
    x0, y0, x1, y1 = box
    if orientation in (2, 3, 7, 8):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 6, 7):
        y0, y1 = height - y1, height - y0
    return (y0, x0, y1, x1) if orientation >= 5 else (x0, y0, x1, y1)
