"""The bytes of the corpus: one scene in every dress an image may come in, and things that are no images."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

WIDTH, HEIGHT = 48, 32
SQUARE = (4, 4, 20, 14)
"""The scene: a square (x0, y0, x1, y1) in the upper left quarter, light red on dark blue; grey, it is light on dark."""
_TURNED_BACK = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def scene(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """The scene in RGB, scaled to another size if need be."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (20, 20, 60))
    image.paste((250, 170, 150), SQUARE)
    return image.resize((width, height), Image.Resampling.NEAREST)


def mask() -> Image.Image:
    image = Image.new("L", (WIDTH, HEIGHT))
    image.paste(255, SQUARE)
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    return saved(image or scene(), "JPEG", **{"quality": 90, **options})


def png(image: Image.Image | None = None, **options: object) -> bytes:
    return saved(image or scene(), "PNG", **options)


def stored_as(image: Image.Image, orientation: int) -> Image.Image:
    """The image as a camera with this EXIF orientation stores it."""
    turn = _TURNED_BACK[orientation]
    return image if turn is None else image.transpose(turn)


def exif(orientation: int) -> bytes:
    result = Image.Exif()
    result[0x0112] = orientation
    return result.tobytes()


def oriented(orientation: int, kind: str = "JPEG") -> bytes:
    return saved(stored_as(scene(), orientation), kind, exif=exif(orientation))


def oriented_box(orientation: int) -> list[int]:
    """The square in the pixels of the stored file."""
    box = stored_as(mask(), orientation).getbbox()
    assert box is not None
    return list(box)


def corrupt_exif() -> bytes:
    """Promises an orientation and ends before it; Pillow warns."""
    return exif(6)[:14] + b"\xff" * 40


def noisy(width: int = 120, height: int = 80) -> Image.Image:
    """An image whose file is long enough to be cut anywhere."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def cut(data: bytes, percent: int) -> bytes:
    return data[: len(data) * percent // 100]


def grey() -> np.ndarray:
    """The scene in [0, 1]."""
    return np.asarray(scene().convert("L"), dtype=np.float32) / 255


def grey_alpha() -> Image.Image:
    return Image.merge("LA", (scene().convert("L"), mask()))


def see_through() -> Image.Image:
    """Alpha 0 everywhere; the colours are still there."""
    image = scene()
    image.putalpha(0)
    return image


def cmyk() -> Image.Image:
    return scene().convert("CMYK")


def ycck() -> bytes:
    """libjpeg makes CMY = 255 - RGB(Y, Cb, Cr), Adobe stores CMYK inverted, and Pillow inverts what it saves as CMYK."""
    bands = [*ImageOps.invert(scene()).convert("YCbCr").split(), Image.new("L", (WIDTH, HEIGHT), 255)]
    data = saved(Image.merge("CMYK", [ImageOps.invert(band) for band in bands]), "JPEG", quality=95)
    marker = data.index(b"Adobe")
    return data[: marker + 11] + b"\x02" + data[marker + 12 :]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_by_hand(width: int, height: int, depth: int, colour: int, rows: bytes, extra: Sequence[bytes] = ()) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def sixteen_bit_colour() -> bytes:
    values = np.asarray(scene()).astype(">u2") * 257
    return png_by_hand(WIDTH, HEIGHT, 16, 2, b"".join(b"\0" + row.tobytes() for row in values))


def bomb(width: int, height: int) -> bytes:
    """A PNG that promises this size, in a hundred bytes."""
    return png_by_hand(width, height, 8, 2, bytes(99))


def text_bomb() -> bytes:
    """A fine PNG with a compressed comment that unfolds to 8 MB."""
    data = png()
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(8 << 20)))
    return data[:33] + comment + data[33:]


def no_animation() -> bytes:
    """A fine PNG that says it is animated, with no frames; Pillow warns."""
    data = png()
    return data[:33] + chunk(b"acTL", struct.pack(">II", 0, 0)) + data[33:]


def bad_crc() -> bytes:
    data = bytearray(png())
    data[data.index(b"IDAT") + 8] ^= 0xFF
    return bytes(data)


def animated(kind: str) -> bytes:
    """The scene, then a black frame."""
    black = Image.new("RGB", (WIDTH, HEIGHT))
    options = {"lossless": True} if kind == "WEBP" else {}
    return saved(scene(), kind, save_all=True, append_images=[black], **options)
