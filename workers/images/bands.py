"""Images that Pillow cannot hold: several bands, 16-bit colour, DICOM. Read as arrays `(height, width, band)` of their own numbers.

TIFF needs the extra `tiff` (tifffile), DICOM the extra `dicom` (pydicom).
"""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG\r\n\x1a\n"
_DICOM_AT = 128
_BITS, _SAMPLES, _EXTRA_SAMPLES, _WIDTH, _HEIGHT, _PHOTOMETRIC, _ORIENTATION = 258, 277, 338, 256, 257, 262, 274
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Bands that are colours, by a TIFF's photometric interpretation."""
FULL_SIXTEEN = 16383
"""Largest value up to which 16-bit numbers may as well have 8, 10, 12 or 14 bits."""


class UnclearLevels(ValueError):
    """Numbers of a deep image of which nobody says which are black and white."""


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file."""
    return data[_DICOM_AT : _DICOM_AT + 4] == b"DICM"


def is_deep_colour(data: bytes) -> bool:
    """Whether the bytes are a PNG or TIFF with 16 bits in each of several bands, of which Pillow keeps 8."""
    if (directory := _directory(data)) is not None:
        bits = directory.get(_BITS, 1)
        return directory.get(_SAMPLES, 1) in (3, 4) and max(bits if isinstance(bits, tuple) else (bits,)) > 8
    return data.startswith(_PNG) and data[24:25] == b"\x10" and data[25:26] in (b"\x02", b"\x06")


def tiff_bands(data: bytes) -> int | None:
    """Bands of the first page of a TIFF; None for anything else, and where its directory cannot be read."""
    directory = _directory(data)
    return None if directory is None else int(directory.get(_SAMPLES, 1))


def has_unmarked_band(data: bytes) -> bool:
    """Whether a TIFF has a band beyond its colours that it does not call alpha, so that it may as well be near infrared."""
    directory = _directory(data)
    if directory is None:
        return False
    bands, colours = int(directory.get(_SAMPLES, 1)), _COLOURS.get(directory.get(_PHOTOMETRIC))
    if colours is None or bands <= colours:
        return False
    extra = directory.get(_EXTRA_SAMPLES)
    kinds = extra if isinstance(extra, tuple) else () if extra is None else (extra,)
    return bands > colours + 1 or not any(kind in (1, 2) for kind in kinds)


def tiff_orientation(data: bytes) -> int:
    """The orientation tag of a TIFF, 1 to 8; 1 where there is none."""
    directory = _directory(data)
    orientation = 1 if directory is None else directory.get(_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _directory(data: bytes) -> Any:
    if data[:4] not in TIFF:
        return None
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(
            data[:16] if data[2:3] == b"+" or data[3:4] == b"+" else data[:8]
        )
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return directory
    except Exception:  # damaged files fail in many ways, and are told about where they are decoded
        return None


def read_bands(data: bytes) -> np.ndarray:
    """Every band of the first page or frame, `(height, width, band)`, as it is stored.

    Raises:
        ValueError: If a package is missing, or there are more pixels than Pillow allows.
        Exception: Whatever the reader raises on damaged files.
    """
    if data[:4] in TIFF:
        return _tiff(data)
    if is_deep_colour(data):
        return _png(data)
    values = np.asarray(Image.open(io.BytesIO(data)))
    return values if values.ndim == 3 else values[..., None]


def _png(data: bytes) -> np.ndarray:
    """By torchvision's own operation, whose public name warns that it will move (and warnings cannot be caught in one thread alone)."""
    import torch

    importlib.import_module("torchvision.extension")  # which registers it
    unchanged = 0
    values = torch.ops.image.decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), unchanged, False)
    return values.permute(1, 2, 0).numpy()


def _tiff(data: bytes) -> np.ndarray:
    directory = _directory(data)
    if directory is not None:
        check_pixels(int(directory.get(_WIDTH, 0)), int(directory.get(_HEIGHT, 0)))
    page = _package("tifffile", "tiff").TiffFile(io.BytesIO(data)).pages[0]
    values, axes = page.asarray(), page.axes
    if axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"a TIFF page with the axes {axes} is not read")
    return values[..., None] if axes == "YX" else np.moveaxis(values, 0, -1) if axes == "SYX" else values


def read_dicom(data: bytes) -> tuple[np.ndarray, bool]:
    """The first frame of a grey DICOM image in its own units (after the modality's rescale), whole numbers where they stay whole.

    Returns:
        The numbers, and whether low ones are shown bright (MONOCHROME1).

    Raises:
        ValueError: If pydicom is missing, the image is not grey, or has more pixels than Pillow allows.
        Exception: Whatever pydicom raises on damaged files.
    """
    pydicom = _package("pydicom", "dicom")
    file = pydicom.dcmread(io.BytesIO(data))
    check_pixels(int(file.Columns), int(file.Rows))
    kind = str(file.PhotometricInterpretation)
    if not kind.startswith("MONOCHROME"):
        raise ValueError(f"a DICOM image of the kind {kind} is not read, only grey ones")
    frame = importlib.import_module("pydicom.pixels").pixel_array(file, index=0)
    slope, intercept = float(file.get("RescaleSlope", 1)), float(file.get("RescaleIntercept", 0))
    if slope.is_integer() and intercept.is_integer():
        return frame.astype(np.int64) * int(slope) + int(intercept), kind == "MONOCHROME1"
    return frame * slope + intercept, kind == "MONOCHROME1"


def dicom_frames(data: bytes) -> int:
    """Frames of a DICOM file, of which the first is read."""
    file = _package("pydicom", "dicom").dcmread(io.BytesIO(data), stop_before_pixels=True)
    return int(file.get("NumberOfFrames", 1) or 1)


def check_pixels(width: int, height: int) -> None:
    """As for every image, before it is decoded.

    Raises:
        ValueError: If there are more than Pillow allows.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ValueError(
            f"the image has {width} x {height} pixels, more than the limit of {limit} against decompression bombs; scale it down"
        )


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"reading it needs {name}: pip install 'heatlas[{extra}]'") from error


def settled_levels(
    lowest: float,
    highest: float,
    kind: np.dtype,
    levels: tuple[float, float] | None,
    *,
    clip: bool,
    level_kind: str = "",
) -> tuple[float, float] | None:
    """What becomes black and white in one deep image; None: as its type has it.

    Args:
        lowest: Of its numbers.
        highest: Of its numbers.
        kind: Of its numbers.
        levels: As `Preprocess` has them.
        clip: Likewise.
        level_kind: Likewise.

    Raises:
        UnclearLevels: If nobody said it for such an image.
    """
    own = "float" if kind.kind == "f" else "integer"
    said = f"its numbers ({kind}) run from {lowest:g} to {highest:g}"
    if level_kind and own != level_kind:
        raise UnclearLevels(
            f"{said}, and black and white were taken from images whose numbers are {_PLURAL[level_kind]}: convert it, or say black and white "
            "of all deep images with --decode.range LOW,HIGH"
        )
    if levels is not None or clip:
        return levels
    if kind == np.uint16 and highest > FULL_SIXTEEN:
        return None
    raise UnclearLevels(
        f"{said}, while most images have 8 bits, so nobody says which are black and white: say --decode.range LOW,HIGH, or dtype for the whole "
        "range of its type, or convert it"
    )


_PLURAL = {"integer": "whole numbers", "float": "floats"}


def as_shares(values: np.ndarray, levels: tuple[float, float] | None, *, clip: bool = True) -> np.ndarray:
    """Stored numbers as float32 in [0, 1].

    Args:
        values: Of any shape and type.
        levels: What becomes 0 and 1; None: the whole range of the type, and of floats [0, 1].
        clip: Whether numbers beyond are cut off; else they are an error.

    Raises:
        UnclearLevels: If numbers lie beyond.
    """
    if levels is None:
        low, high = (0.0, 1.0) if values.dtype.kind == "f" else (0.0, float(np.iinfo(values.dtype).max))
    else:
        low, high = levels
    smallest, largest = float(values.min()), float(values.max())
    inside = low <= smallest and largest <= high  # False for NaN too
    if not inside and (not clip or levels is None or not np.isfinite([smallest, largest]).all()):
        raise UnclearLevels(
            f"its values run from {smallest:g} to {largest:g}, expected are {low:g} to {high:g}: say what is black and white with "
            "--decode.range LOW,HIGH"
        )
    return np.clip((values.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
