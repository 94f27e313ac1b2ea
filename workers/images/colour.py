"""Any Pillow mode to 8-bit RGB.

Rules, so that the network sees what its training pipeline most likely saw:

- Alpha is dropped, not composited: `convert("RGB")` is what torchvision's, timm's and Hugging Face's loaders do.
- 16-bit grey is scaled to 8 bits (65535 becomes 255), never clipped; 16-bit colour keeps its high byte.
- Float and 32-bit grey have no defined white. It is taken from the largest value: floats up to 1 are fractions, values up
  to 255 are 8-bit, up to 65535 16-bit; larger, negative or NaN values are refused. `levels` says otherwise for all grey of more than
  8 bits; a run takes them from the images that it looks at first, and refuses those of which nobody said it (`clip` False).
- Embedded colour profiles other than sRGB are converted to it, those of grey images too; CMYK without one plainly. Lab goes through littleCMS.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from .bands import as_shares, settled_levels
from .stored_facts import profile_name

_PLAIN = {"RGBA": "RGB", "P": "RGB", "PA": "RGB", "LA": "L"}
"""Modes to which others are brought before their profile is applied."""
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
"""Formats whose integer mode `I` always means 16 bits."""


def to_rgb(
    image: Image.Image, levels: tuple[float, float] | None = None, *, clip: bool = True, level_kind: str = ""
) -> Image.Image:
    """The loaded image as RGB.

    Args:
        image: Loaded.
        levels: What becomes black and white where a grey image has more than 8 bits; None: see above.
        clip: Whether values beyond them are cut off; else they are an error.
        level_kind: Kind of numbers for which they hold.

    Raises:
        ValueError: If the values of a float or 32-bit image have no known scale, or lie beyond the levels.
    """
    if profile_name(image):
        image = _to_srgb(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return grey_to_rgb(np.asarray(image), image.format, levels, clip=clip, level_kind=level_kind)
    image.info.pop("transparency", None)  # else Pillow warns about the alpha that is dropped
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])  # premultiplied: restore the colour first
    return image.convert("RGB")


def grey_to_rgb(
    values: np.ndarray,
    image_format: str | None,
    levels: tuple[float, float] | None,
    *,
    clip: bool = True,
    level_kind: str = "",
) -> Image.Image:
    """Deep grey values `(height, width)` as RGB.

    Args:
        values: Of a file.
        image_format: Pillow's name of its format.
        levels: As `to_rgb` takes them.
        clip: Likewise.
        level_kind: Likewise.

    Raises:
        ValueError: If nobody says what is black and white in it, or values lie beyond that.
    """
    if values.dtype.kind in "iu" and image_format in _SIXTEEN_BIT_FORMATS:
        values = values.astype(np.uint16)
    levels = settled_levels(float(values.min()), float(values.max()), values.dtype, levels, clip=clip, level_kind=level_kind)  # fmt: skip
    if levels is not None:
        shares = as_shares(values, levels, clip=clip)
        return Image.fromarray(np.rint(shares * 255).astype(np.uint8)).convert("RGB")
    return _grey(values).convert("RGB")


def _to_srgb(image: Image.Image) -> Image.Image:
    """By its own profile; a damaged one is ignored, as every reader does."""
    try:
        plain = image.convert(_PLAIN.get(image.mode, image.mode))
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        return ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def _grey(values: np.ndarray) -> Image.Image:
    white = 65535 if values.dtype == np.uint16 else _white(values)
    scaled = np.rint(values.astype(np.float32) * np.float32(255 / white))
    return Image.fromarray(scaled.astype(np.uint8))


def _white(values: np.ndarray) -> int:
    smallest, largest = values.min(), values.max()
    steps = (1, 255, 65535) if values.dtype.kind == "f" else (255, 65535)
    if smallest >= 0:
        for white in steps:
            if largest <= white:
                return white
    raise ValueError(
        f"its values run from {smallest} to {largest}; grey images with other than 8 or 16 bits must hold values in "
        "[0, 1], [0, 255] or [0, 65535]: convert it to one of these"
    )
