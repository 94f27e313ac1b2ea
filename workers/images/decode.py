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
from PIL import Image

from ...engine.explanation import Explanation
from ...engine.lazy_torch import torch
from ...errors import SampleError
from ...statuses import DECODE_ERROR, READ_ERROR, TRUTH_ERROR
from ..protocols import SampleReader
from ..samples import Sample
from .colour import to_rgb
from .exif import read_orientation, upright_image
from .geometry import Geometry
from .ground_truth import truth_from_boxes, truth_from_mask
from .pillow_warnings import silence_pillow
from .png_checksum import check_png
from .preprocess import Preprocess

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


def prepare(sample: Sample, reader: SampleReader, preprocess: Preprocess) -> Prepared:
    """Read, decode and preprocess one sample; a mask goes before boxes where there are both.

    Raises:
        SampleError: With `read_error` (image or mask cannot be read), `decode_error` (not a usable image) or
            `truth_error` (boxes or mask do not fit the image).
    """
    data = reader.read(sample.uri)
    image, orientation = decode_stored(data)
    geometry = preprocess.geometry(image.height, image.width)
    truth = _truth(sample, reader, orientation, geometry)
    tensor = None if truth is None else torch.from_numpy(np.ascontiguousarray(truth))
    return Prepared(
        preprocess.tensor(image), tensor, image.height, image.width,
        source_size=len(data), source_hash=hashlib.sha256(data).hexdigest(),
    )  # fmt: skip


def decode_image(data: bytes) -> Image.Image:
    """The upright RGB image in `data`.

    Raises:
        SampleError: With `decode_error`, when the bytes are no readable image or it has too many pixels.
    """
    return decode_stored(data)[0]


def decode_stored(data: bytes) -> tuple[Image.Image, int]:
    """The upright RGB image, and the EXIF orientation 1-8 in which it was stored.

    Raises:
        SampleError: As `decode`.
    """
    try:
        image = _open(data)
        orientation = read_orientation(image)  # before loading: Pillow turns a TIFF while it loads
        image.load()
        return upright_image(to_rgb(image), read_orientation(image)), orientation
    except SampleError:
        raise
    except Exception as error:  # Pillow's drivers raise nearly anything on damaged files
        raise SampleError(
            DECODE_ERROR, f"the image is damaged, cut short or not supported: {_reason(error)}"
        ) from error


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
    if sample.mask_uri is not None:
        return truth_from_mask(decode_mask(_read_mask(reader, sample.mask_uri)), orientation, geometry)
    return truth_from_boxes(sample.boxes, orientation, geometry) if sample.boxes else None


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
