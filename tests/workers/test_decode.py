"""Bytes of every kind of image, good and bad, and ground truth that turns with the image."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from heatlas.errors import SampleError
from heatlas.statuses import DECODE_ERROR, READ_ERROR, TRUTH_ERROR
from heatlas.workers.images.decode import FORMATS, decode_image, decode_mask, prepare
from heatlas.workers.samples import Sample
from PIL import Image

from ..support.checkout import SHARED_DATA
from ..support.image_bytes import PLAIN, Files, colourful, saved

GRADIENT = (
    np.stack(np.meshgrid(np.arange(0, 240, 10), np.arange(0, 160, 10)), axis=-1).sum(-1).astype(np.uint8)
)  # 16 x 24


def pixels(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_round_trips(kind: str) -> None:
    exact = {"PNG", "BMP", "TIFF", "PPM"}
    data = saved(colourful(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    difference = np.abs(pixels(data).astype(int) - np.asarray(colourful(), dtype=int))
    assert difference.max() <= (0 if kind in exact or kind == "WEBP" else 60)
    assert difference.mean() < 12


def test_grey_is_repeated() -> None:
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(GRADIENT), "PNG")), GRADIENT[..., None].repeat(3, -1))


def test_grey_with_alpha_and_rgba_keep_their_colours() -> None:
    alpha = Image.fromarray(255 - GRADIENT)
    grey = Image.merge("LA", (Image.fromarray(GRADIENT), alpha))
    np.testing.assert_array_equal(pixels(saved(grey, "PNG")), GRADIENT[..., None].repeat(3, -1))
    rgba = colourful()
    rgba.putalpha(alpha)
    np.testing.assert_array_equal(pixels(saved(rgba, "PNG")), np.asarray(colourful()))


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 128])])
def test_palette_with_and_without_transparency(transparency) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    options = {} if transparency is None else {"transparency": transparency}
    assert pixels(saved(image, "PNG", **options)).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


def test_transparent_colour_of_rgb_and_grey_png() -> None:
    np.testing.assert_array_equal(pixels(saved(colourful(), "PNG", transparency=(0, 0, 90))), np.asarray(colourful()))
    grey = Image.fromarray(GRADIENT)
    assert pixels(saved(grey, "PNG", transparency=0)).shape == (16, 24, 3)


def test_one_bit() -> None:
    image = Image.fromarray(GRADIENT > 100)
    assert set(np.unique(pixels(saved(image, "PNG")))) == {0, 255}


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 257, 32896, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert pixels(saved(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    pgm = b"P5 5 1 65535\n" + values.astype(">u2").tobytes()
    assert pixels(pgm)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize(("largest", "expected"), [(1.0, 255), (255.0, 255), (65535.0, 255)])
def test_float_tiff_takes_its_white_from_its_largest_value(largest: float, expected: int) -> None:
    values = np.linspace(0, largest, 11, dtype=np.float32)[None]
    row = pixels(saved(Image.fromarray(values), "TIFF"))[0, :, 0]
    np.testing.assert_allclose(row, np.linspace(0, expected, 11), atol=0.51)


@pytest.mark.parametrize("values", [[-1.0, 1.0], [0.0, 1e9], [0.0, float("nan")]])
def test_float_of_unknown_scale_is_refused(values: list[float]) -> None:
    data = saved(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    with pytest.raises(SampleError, match=r"convert it to one of these") as caught:
        decode_image(data)
    assert caught.value.status == DECODE_ERROR


def test_thirty_two_bit_integers() -> None:
    values = np.array([[0, 100, 255]], dtype=np.int32)
    assert pixels(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 100, 255]


def test_cmyk_jpeg_is_not_inverted() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(saved(red, "JPEG", quality=95)).astype(int) - (254, 0, 0)).max() < 6


def test_ycck_jpeg() -> None:
    """libjpeg makes CMY = 255 - RGB(Y, Cb, Cr), and Adobe stores CMYK inverted: red is the Y, Cb, Cr of cyan, with K 255.

    Pillow inverts what it saves as CMYK, so the bands go in inverted once more.
    """
    bands = [*Image.new("RGB", (16, 16), (0, 255, 255)).convert("YCbCr").split(), Image.new("L", (16, 16), 255)]
    stored = Image.merge("CMYK", [band.point(lambda value: 255 - value) for band in bands])
    data = saved(stored, "JPEG", quality=95)
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0  # transform: none
    ycck = data[: marker + 11] + b"\x02" + data[marker + 12 :]
    assert np.abs(pixels(ycck).astype(int) - (254, 0, 0)).max() < 8


def test_lab_tiff() -> None:
    lab = Image.merge("LAB", [Image.new("L", (4, 4), 255), Image.new("L", (4, 4), 128), Image.new("L", (4, 4), 128)])
    assert np.abs(pixels(saved(lab, "TIFF")).astype(int) - 255).max() <= 4


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (pixels(data) == (255, 0, 0)).all(), kind


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_tiny_images_are_images(size: tuple[int, int]) -> None:
    assert decode_image(saved(Image.new("RGB", size), "PNG")).size == size


def failure(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        decode_image(data)
    assert caught.value.status == DECODE_ERROR
    return caught.value.text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not an image: the file is empty"),
        (b"hello, I am a text\n", "not an image: it is text that begins with 'hello, I am a text"),
        (b"<!DOCTYPE html><html>404</html>", "it is text that begins with '<!DOCTYPE html>"),
        (bytes(100), "it begins with zero bytes"),
        (b"\x89\x01\x02\xff" * 9, "unknown format, first bytes 89 01 02 ff"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is text that begins with '%!PS-Adobe"),
        (b"\xff\xd8\xff\xe0 no jpeg", "it begins like a JPEG file but is damaged or cut short ("),
        (b"P6 4", "it begins like a PPM file but is damaged or cut short ("),
        (b"P6 0 0 255\n", "PPM"),
    ],
)
def test_what_is_no_image_says_what_it_is(data: bytes, text: str) -> None:
    assert text in failure(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_files_are_errors(kind: str) -> None:
    data = saved(colourful(120, 80), kind)
    for tenth in range(1, 9):
        assert failure(data[: len(data) * tenth // 10])


def test_a_changed_byte_in_the_pixels_of_a_png_is_an_error() -> None:
    data = saved(colourful(120, 80), "PNG")
    first, last = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for place in range(first, last, 37):
        changed = bytearray(data)
        changed[place] ^= 0x10
        assert "the checksum of its IDAT chunk is wrong" in failure(bytes(changed))
    with pytest.raises(SampleError, match=r"the mask cannot be decoded: .* checksum") as caught:
        decode_mask(bytes(changed))
    assert caught.value.status == TRUTH_ERROR
    header = bytearray(data)
    header[data.index(b"IHDR") + 7] ^= 1
    assert "bad header checksum" in failure(bytes(header))


def png_of(width: int, height: int) -> bytes:
    """A PNG header that promises this size, with hardly any data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(10_000, 9_000), (50_000, 50_000)])
def test_decompression_bomb_is_an_error_and_never_a_warning(size: tuple[int, int]) -> None:
    text = failure(png_of(*size))
    assert f"{size[0]} x {size[1]}" in text
    assert "limit of 89478485" in text


def corrupt_exif() -> bytes:
    """Promises an orientation that is not there; Pillow warns about it, for JPEG already while it opens the file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()[:14] + b"\xff" * 40


def test_corrupt_exif_leaves_the_image_upright_where_warnings_are_errors() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        data = saved(colourful(), kind, exif=corrupt_exif())
        warnings.simplefilter("error")  # set anew before each image, as a test framework does
        with pytest.raises(UserWarning, match="Corrupt EXIF"):
            Image.open(io.BytesIO(data)).getexif()
        assert decode_image(data).size == (24, 16), kind


def test_threads_silence_pillow_and_nobody_else() -> None:
    data = saved(colourful(), "JPEG", exif=corrupt_exif())
    failures: list[SampleError] = []

    def work() -> None:
        for _ in range(50):
            try:
                decode_image(data)
            except SampleError as error:
                failures.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=work) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", stacklevel=1)
    assert failures == []


def test_corrupt_exif_in_a_process_that_makes_errors_of_warnings() -> None:
    program = "import sys; from heatlas.workers.images.decode import decode_image as decode; print(decode(sys.stdin.buffer.read()).size)"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        input=saved(colourful(), "JPEG", exif=corrupt_exif()), capture_output=True, cwd="/",
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (b"(24, 16)", b"")


def test_threads_decode_the_same() -> None:
    files = [saved(colourful(20 + n, 30), kind) for n in range(6) for kind in ("JPEG", "PNG", "GIF", "WEBP")]
    alone = [pixels(data) for data in files]
    together: list = [None] * len(files)

    def work(first: int) -> None:
        for place in range(first, len(files), 4):
            together[place] = pixels(files[place])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for entry, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(entry, other)


def test_decoding_works_in_a_fresh_process_that_opened_nothing_before() -> None:
    program = "import sys; from heatlas.workers.images.decode import decode_image as decode; print(decode(sys.stdin.buffer.read()).size)"
    done = subprocess.run(
        [sys.executable, "-c", program], input=saved(colourful(), "WEBP"), capture_output=True, cwd="/"
    )
    assert done.stdout.split() == [b"(24,", b"16)"], done.stderr


def test_a_sample_that_cannot_be_read_says_so() -> None:
    with pytest.raises(SampleError, match="no such file") as caught:
        prepare(Sample("a", "gone"), Files(), PLAIN)
    assert caught.value.status == READ_ERROR


@pytest.mark.outside_files("shared/data/imagenet_boxes")
def test_real_images(shared_images: list[Path]) -> None:
    for path in shared_images[:20]:
        with Image.open(path) as image:
            np.testing.assert_array_equal(pixels(path.read_bytes()), np.asarray(image.convert("RGB")))


@pytest.fixture
def shared_images() -> list[Path]:
    folder = SHARED_DATA / "imagenet_boxes"
    return sorted(folder.glob("*.JPEG"))
