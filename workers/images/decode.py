"""Bytes to an upright RGB image, and a listed sample to what the engine takes.

Only the formats below are opened: no format that runs another program (EPS) and none without a signature (TGA, which
takes any text for an image). Whatever is wrong with an image becomes a `SampleError`. Several threads may decode at once;
the one thing of the whole process that is touched is that Pillow's remarks on damaged metadata are silenced.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageOps

from ...engine.explanation import Explanation
from ...engine.lazy_torch import torch
from ...errors import SampleError
from ...statuses import DECODE_ERROR, READ_ERROR, TRUTH_ERROR
from ..protocols import SampleReader
from ..samples import Sample
from .bands import (
    TIFF,
    UnclearLevels,
    as_shares,
    has_unmarked_band,
    is_deep_colour,
    is_dicom,
    read_bands,
    read_dicom,
    settled_levels,
    tiff_bands,
    tiff_orientation,
)
from .colour import grey_to_rgb, to_rgb
from .exif import read_orientation, stored_size, upright_image, upright_mask
from .geometry import Geometry
from .ground_truth import drawn_boxes, scaled_mask, truth_from_boxes, truth_from_mask
from .pillow_warnings import silence_pillow
from .png_checksum import check_png
from .preprocess import Preprocess
from .stored_facts import stored_profile

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow's names of the formats that are read; of animated ones the first frame. AVIF where Pillow was built with it."""

Image.init()  # registers the drivers, once, before any thread decodes


@dataclass(frozen=True, slots=True)
class Prepared:
    """One sample, ready for the network."""

    image: Float[torch.Tensor, "channel height width"]
    """float32, normalised, at the network's input size."""
    truth: Bool[torch.Tensor, "height width"] | None
    """Ground truth at the same size; None where the data set has none, all False where it says that there is nothing."""
    height: int
    """Pixels of the upright image, before preprocessing."""
    width: int
    given: Sequence[Explanation] | None = None
    """What is to be measured, one for each target; None where the sample is yet to be explained."""
    source_size: int | None = None
    """Bytes of the image as read."""
    source_hash: str | None = None
    """Their sha256 (hex)."""
    geometry: Geometry | None = None
    """Where its pixels went."""


def prepare(sample: Sample, reader: SampleReader, preprocess: Preprocess) -> Prepared:
    """Read, decode and preprocess one sample; a mask goes before boxes where there are both.

    Raises:
        SampleError: With `read_error` (image or mask cannot be read), `decode_error` (not a usable image) or
            `truth_error` (boxes or mask do not fit the image).
    """
    data = reader.read(sample.uri)
    size, digest = len(data), hashlib.sha256(data).hexdigest()
    try:
        image, orientation = decode_input(data, preprocess)
        height, width = (image.height, image.width) if isinstance(image, Image.Image) else image.shape[:2]
        geometry = preprocess.geometry(height, width)
        truth = _truth(sample, reader, orientation, geometry)
    except SampleError as error:
        error.source_size, error.source_hash = size, digest
        raise
    tensor = None if truth is None else torch.from_numpy(np.ascontiguousarray(truth))
    return Prepared(
        preprocess.tensor(image), tensor, height, width,
        source_size=size, source_hash=digest, geometry=geometry,
    )  # fmt: skip


def decode_image(data: bytes, preprocess: Preprocess | None = None) -> Image.Image:
    """The upright RGB image in `data`, for human eyes; of several bands the first three, of two the first.

    Args:
        data: The file.
        preprocess: Of the run, which says what is black and white in deep images; None: as the file's type has it.

    Raises:
        SampleError: With `decode_error`, when the bytes are no readable image or it has too many pixels.
    """
    image, _ = decode_input(data, preprocess or Preprocess())
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    shown = image[..., :3] if image.shape[2] > 2 else image[..., :1].repeat(3, axis=2)
    return Image.fromarray(np.rint(shown * 255).astype(np.uint8))


def decode_input(data: bytes, preprocess: Preprocess) -> tuple[Image.Image | np.ndarray, int]:
    """The upright image as the preprocessing takes it, and the EXIF orientation 1-8 in which it was stored.

    Returns:
        An RGB image for networks of 1 or 3 channels, else an array `(height, width, channel)` in [0, 1].

    Raises:
        SampleError: With `decode_error`, when the bytes are no readable image, it has too many pixels, other bands than the network has
            channels, or values beyond the levels.
    """
    try:
        if preprocess.bands is not None or preprocess.channels not in (1, 3):
            return _chosen_bands(data, preprocess)
        rule = {"clip": preprocess.clip_levels, "level_kind": preprocess.level_kind}
        if is_dicom(data):
            values, is_negative = read_dicom(data)
            grey = grey_to_rgb(values, None, preprocess.levels, **rule)
            return ImageOps.invert(grey) if is_negative else grey, 1
        bands = tiff_bands(data)
        if (bands or 0) > 4 or has_unmarked_band(data):
            raise SampleError(
                DECODE_ERROR,
                f"the TIFF has {bands} bands and the network takes {preprocess.channels} channels; choose bands with --decode.bands 1,2,3, or "
                f"say that it takes all of them (--preprocess.channels {bands}, --preprocess.mean, --preprocess.std)",
            )
        if is_deep_colour(data) and (
            preprocess.levels is not None or preprocess.level_kind or not preprocess.clip_levels
        ):
            return _deep_colour(data, preprocess)
        image = _open(data)
        orientation = read_orientation(image)  # before loading: Pillow turns a TIFF while it loads
        image.load()
        rgb = to_rgb(image, preprocess.levels, **rule)
        return upright_image(rgb, read_orientation(image)), orientation
    except SampleError:
        raise
    except UnclearLevels as error:
        raise SampleError(DECODE_ERROR, f"what is black and white in the image is not clear: {error}") from error
    except Exception as error:  # Pillow's drivers raise nearly anything on damaged files
        raise SampleError(
            DECODE_ERROR, f"the image is damaged, cut short or not supported: {_reason(error)}"
        ) from error


def _deep_colour(data: bytes, preprocess: Preprocess) -> tuple[Image.Image, int]:
    values = read_bands(data)[..., :3]
    lowest, highest = float(values.min()), float(values.max())
    levels = settled_levels(
        lowest, highest, values.dtype, preprocess.levels, clip=preprocess.clip_levels, level_kind=preprocess.level_kind
    )
    shares = as_shares(values, levels, clip=preprocess.clip_levels)
    image = Image.fromarray(np.rint(shares * 255).astype(np.uint8))
    if (profile := stored_profile(data)) is not None:
        image.info["icc_profile"] = profile
    orientation = _stored_orientation(data)
    return upright_image(to_rgb(image), orientation), orientation


def _chosen_bands(data: bytes, preprocess: Preprocess) -> tuple[Image.Image | np.ndarray, int]:
    values = read_bands(data)
    chosen = preprocess.bands or tuple(range(1, values.shape[2] + 1))
    if max(chosen) > values.shape[2] or len(chosen) != preprocess.channels:
        wanted = f"bands {', '.join(map(str, chosen))} are wanted" if preprocess.bands else "all are taken"
        raise SampleError(
            DECODE_ERROR,
            f"the image has {values.shape[2]} bands, {wanted}, and the network takes {preprocess.channels} channels; choose as many with "
            "--decode.bands",
        )
    values, levels = values[..., [band - 1 for band in chosen]], preprocess.levels
    if values.dtype.itemsize > 1:
        lowest, highest = float(values.min()), float(values.max())
        levels = settled_levels(
            lowest, highest, values.dtype, levels, clip=preprocess.clip_levels, level_kind=preprocess.level_kind
        )
    else:
        levels = None  # 8 bits have their own black and white
    shares = as_shares(values, levels, clip=preprocess.clip_levels)
    orientation = _stored_orientation(data)
    upright = np.stack([upright_mask(shares[..., band], orientation) for band in range(shares.shape[2])], axis=-1)
    if preprocess.channels not in (1, 3):
        return upright, orientation
    levels = np.rint(upright * 255).astype(np.uint8)
    return Image.fromarray(levels if preprocess.channels == 3 else levels[..., 0]).convert("RGB"), orientation


def _stored_orientation(data: bytes) -> int:
    if data[:4] in TIFF:
        return tiff_orientation(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return read_orientation(image)
    except Exception:  # several bands are more than Pillow opens
        return 1


def decode_mask(data: bytes) -> Bool[np.ndarray, "height width"]:
    """Where a mask file is not zero: any colour band, the index of a palette image; alpha does not count. Not turned.

    Raises:
        SampleError: With `truth_error`, when the bytes are no readable image.
    """
    try:
        image = _open(data)
        image.load()
        values = np.asarray(image)
    except Exception as error:
        raise SampleError(TRUTH_ERROR, f"the mask cannot be decoded: {_reason(error)}") from error
    if values.ndim == 3:
        colours = [index for index, band in enumerate(image.getbands()) if band not in ("A", "a")]
        values = values[..., colours].any(axis=-1)
    return values != 0


def _truth(sample: Sample, reader: SampleReader, orientation: int, geometry: Geometry) -> np.ndarray | None:
    stored = stored_size(*geometry.source, orientation)
    if sample.mask_uri is not None:
        mask = decode_mask(_read_mask(reader, sample.mask_uri))
        if sample.scale_truth:
            mask = scaled_mask(mask, stored)
        return truth_from_mask(mask, orientation, geometry)
    boxes = drawn_boxes(sample, stored, geometry.source)
    if boxes and sample.drawn_on == geometry.source[::-1] != stored[::-1] and not sample.scale_truth:
        orientation = 1  # they were drawn on the picture as it is shown, not as it is stored
    return truth_from_boxes(boxes, orientation, geometry) if boxes else None


def _read_mask(reader: SampleReader, uri: str) -> bytes:
    try:
        return reader.read(uri)
    except SampleError as error:
        raise SampleError(READ_ERROR, f"mask: {error.text}") from error


def _open(data: bytes) -> Image.Image:
    """`Image.open` for our formats only, with the limit on pixels as an error before anything is decoded.

    (Pillow's own warns up to twice the limit, and warnings cannot be caught without touching other threads.)
    """
    silence_pillow()
    damage = None
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or (accept is not None and accept(data[:16]) is not True):
            continue
        try:
            image = factory(io.BytesIO(data), "")
            if name == "PNG":
                check_png(data)
        except Exception as error:  # drivers raise nearly anything for bytes that they do not take
            damage = f"it begins like a {name} file but is damaged or cut short ({_reason(error)})"
            continue
        _check_pixels(image)
        return image
    raise SampleError(DECODE_ERROR, damage or f"not an image: {_what_it_is(data)}; formats read: {', '.join(FORMATS)}")


def _check_pixels(image: Image.Image) -> None:
    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if pixels == 0:
        raise SampleError(DECODE_ERROR, f"the image has no pixels ({image.width} x {image.height})")
    if limit is not None and pixels > limit:
        raise SampleError(
            DECODE_ERROR,
            f"the image has {image.width} x {image.height} = {pixels} pixels, more than the limit of {limit} against "
            "decompression bombs; scale it down",
        )


def _what_it_is(data: bytes) -> str:
    if not data:
        return "the file is empty"
    head = data[:64]
    if not head.strip(b"\0"):
        return "it begins with zero bytes"
    text = head.decode("utf-8", "replace")
    if all(character.isprintable() or character in "\r\n\t" for character in text.rstrip("\ufffd")):
        return f"it is text that begins with {text[:40].rstrip(chr(0xFFFD))!r}"
    return f"unknown format, first bytes {head[:8].hex(' ')}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
