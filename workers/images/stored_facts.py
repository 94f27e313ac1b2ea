"""What an image file says of itself before it is explained: how deep its numbers are, how many pages it has, which colour profile."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from .bands import is_deep_colour, is_dicom, read_bands, read_dicom, tiff_bands
from .exif import read_orientation

PERCENTILES = (1.0, 99.0)


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
            return _of_values(read_dicom(data)[..., None], FileFacts(0, 0))
        many = every_band or (tiff_bands(data) or 0) > 4
        if many or is_deep_colour(data):
            return _of_values(read_bands(data), FileFacts(0, 0))
        with Image.open(io.BytesIO(data)) as image:
            facts = FileFacts(
                image.width, image.height, read_orientation(image), getattr(image, "n_frames", 1), profile_name(image)
            )
            return _of_values(np.asarray(image)[..., None], facts) if image.mode[:1] in ("I", "F") else facts
    except Exception:  # of any kind, on damaged files
        return None


def _of_values(values: np.ndarray, facts: FileFacts) -> FileFacts:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, PERCENTILES)
    return FileFacts(
        values.shape[1], values.shape[0], facts.orientation, facts.pages, facts.profile, values.dtype.name,
        float(finite.min()), float(finite.max()), (float(low), float(high)),
    )  # fmt: skip


def profile_name(image: Image.Image) -> str:
    """The name of an image's colour profile; empty without one and for sRGB."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return ""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()
    except Exception:  # a damaged profile is ignored, as every reader does
        return ""
    return "" if "srgb" in name.lower() else name or "unnamed"
