"""What an image file says of itself before it is explained: how deep its numbers are, how many pages it has, which colour profile."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from .bands import (
    dicom_frames,
    has_unmarked_band,
    is_deep_colour,
    is_dicom,
    read_bands,
    read_dicom,
    tiff_bands,
    tiff_orientation,
)
from .exif import read_orientation

PERCENTILES = (1.0, 99.0)
MOST_NUMBERS = 1_000_000
"""Of an image from which the percentiles are taken, evenly spread."""


@dataclass(frozen=True)
class FileFacts:
    """One file."""

    width: int
    """Pixels as stored."""
    height: int
    orientation: int = 1
    """EXIF's, 1 to 8."""
    pages: int = 1
    profile: str = ""
    """Name of its colour profile where that is none of sRGB."""
    kind: str = "uint8"
    """NumPy's name of its numbers."""
    lowest: float = 0.0
    highest: float = 255.0
    usual: tuple[float, float] = (0.0, 255.0)
    """The percentiles 1 and 99 of its numbers."""

    alpha: bool = False
    """Whether it has an alpha channel or a transparent colour."""
    inks: bool = False
    """Whether it is CMYK."""
    unread: bool = False
    """Whether it has bands of which nobody says which are red, green and blue."""

    @property
    def is_deep(self) -> bool:
        return self.kind not in ("uint8", "bool")


def file_facts(data: bytes, *, every_band: bool = False) -> FileFacts | None:
    """Facts of a file; None where it cannot be read, which is told where it is decoded. Images of 8 bits are not decoded.

    Args:
        data: Its bytes.
        every_band: Whether it will be read band by band.
    """
    try:
        if is_dicom(data):
            return _of_values(read_dicom(data)[0][..., None], FileFacts(0, 0, pages=dicom_frames(data)))
        bands = tiff_bands(data) or 0
        unread = (bands > 4 or has_unmarked_band(data)) and not every_band
        if every_band or unread or is_deep_colour(data):
            return replace(_of_values(read_bands(data), _opened(data)), unread=unread)
        with Image.open(io.BytesIO(data)) as image:
            facts = _facts(image)
            return _of_values(np.asarray(image)[..., None], facts) if image.mode[:1] in ("I", "F") else facts
    except Exception:  # of any kind, on damaged files
        return None


def _facts(image: Image.Image) -> FileFacts:
    alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return FileFacts(
        image.width, image.height, read_orientation(image), getattr(image, "n_frames", 1), profile_name(image), alpha=alpha,
        inks=image.mode == "CMYK",
    )  # fmt: skip


def _opened(data: bytes) -> FileFacts:
    """What Pillow says of a file of several bands, if it opens it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _facts(image)
    except Exception:
        return FileFacts(0, 0, tiff_orientation(data))


def _of_values(values: np.ndarray, facts: FileFacts) -> FileFacts:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite.ravel()[:: max(1, finite.size // MOST_NUMBERS)], PERCENTILES)
    return replace(
        facts, width=values.shape[1], height=values.shape[0], kind=values.dtype.name, lowest=float(finite.min()),
        highest=float(finite.max()), usual=(float(low), float(high)),
    )  # fmt: skip


def stored_profile(data: bytes) -> bytes | None:
    """The colour profile in a file that Pillow opens; None where there is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.info.get("icc_profile")
    except Exception:  # Pillow's drivers raise nearly anything
        return None


def profile_name(image: Image.Image) -> str:
    """The name of an image's colour profile; empty without one and for sRGB."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L", "LA", "P", "PA"):
        return ""
    try:
        opened: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if (space == "GRAY") != (image.mode in ("L", "LA")):
            return ""  # of another kind of image than this one, so every reader ignores it
        name = ImageCms.getProfileDescription(opened).strip()
    except Exception:  # a damaged profile is ignored, as every reader does
        return ""
    return "" if "srgb" in name.lower() else name or "unnamed"
