"""Images of more than 8 bits or 3 bands: TIFF, 16-bit PNG, DICOM and colour profiles, from bytes to the network's input."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from heatlas.errors import SampleError
from heatlas.workers.images.decode import decode_image, prepare
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.images.stored_facts import file_facts
from heatlas.workers.samples import Sample
from PIL import Image, ImageCms

SIZE = (12, 16)


class Files(dict):
    def read(self, uri: str) -> bytes:
        return self[uri]


def tiff(values: np.ndarray, **options) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def many(bands: int, kind: type = np.uint8, top: int = 255) -> np.ndarray:
    return np.random.default_rng(bands).integers(0, top + 1, (*SIZE, bands)).astype(kind)


def input_of(data: bytes, **options) -> torch.Tensor:
    channels = options.get("channels", 3)
    preprocess = Preprocess(size=SIZE, resize="squash", mean=(0.0,) * channels, std=(1.0,) * channels, **options)
    return prepare(Sample("a", "image"), Files(image=data), preprocess).image


def refusal(data: bytes, **options) -> str:
    with pytest.raises(SampleError) as caught:
        input_of(data, **options)
    assert caught.value.status == "decode_error"
    return caught.value.text


@pytest.mark.check("file", "TIFFs of 2, 4, 5 and 12 bands, 8 and 16 bits", "known")
@pytest.mark.parametrize("bands", [2, 4, 5, 12])
@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_every_band_reaches_a_network_that_takes_them(bands: int, kind: type, top: int, planar: str) -> None:
    values = many(bands, kind, top)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    data = tiff(stored, photometric="minisblack", planarconfig=planar)
    given = input_of(data, channels=bands)
    np.testing.assert_allclose(given.permute(1, 2, 0).numpy(), values / top, atol=1e-6)


@pytest.mark.check("file", "more bands than the network has channels", "asked")
def test_bands_are_chosen_by_number() -> None:
    values = many(5)
    data = tiff(values, photometric="minisblack", planarconfig="contig")
    given = input_of(data, bands=(5, 1, 3))
    np.testing.assert_allclose(given.permute(1, 2, 0).numpy(), values[..., [4, 0, 2]] / 255, atol=1e-6)
    assert "has 5 bands, bands 6 are wanted" in refusal(data, channels=1, bands=(6,))
    assert "the TIFF has 5 bands and the network takes 3 channels; choose bands with --decode.bands" in refusal(data)
    assert "5 bands, all are taken, and the network takes 4 channels" in refusal(data, channels=4)


@pytest.mark.check("file", "near infrared as a fourth band", "asked")
def test_a_fourth_band_that_is_no_alpha_is_not_dropped() -> None:
    values = many(4)
    infrared = tiff(values, photometric="rgb", extrasamples=["unspecified"])
    assert "has 4 bands and the network takes 3 channels" in refusal(infrared)
    assert input_of(infrared, channels=4).shape == (4, *SIZE)
    alpha = tiff(values, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_allclose(input_of(alpha).permute(1, 2, 0).numpy(), values[..., :3] / 255, atol=1e-6)


def test_twelve_bits_in_sixteen_keep_their_levels() -> None:
    values = many(1, np.uint16, 4095)[..., 0]
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    for data in (file.getvalue(), tiff(values)):
        facts = file_facts(data)
        assert facts is not None
        assert (facts.is_deep, facts.kind, facts.highest) == (True, "uint16", values.max())
        given = input_of(data, levels=(0.0, 4095.0))[0].numpy()
        np.testing.assert_allclose(given, values / 4095, atol=0.6 / 255)
        assert "run from" in refusal(data, levels=(0.0, 1000.0), clip_levels=False)
        assert input_of(data, levels=(0.0, 1000.0)).max() == 1
        shown = np.asarray(decode_image(data, Preprocess(levels=(0.0, 4095.0))))
        np.testing.assert_array_equal(shown[..., 0], np.rint(values / 4095 * 255))


def test_sixteen_bit_colour_in_png_keeps_its_levels() -> None:
    values = many(3, np.uint16, 4095)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 16, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    given = input_of(data, levels=(0.0, 4095.0))
    np.testing.assert_allclose(given.permute(1, 2, 0).numpy(), values / 4095, atol=0.6 / 255)
    assert "nobody says which are black and white" in refusal(data, clip_levels=False)


@pytest.mark.check("file", "16-bit colour", "known")
def test_sixteen_bit_colour_keeps_its_levels() -> None:
    values = many(3, np.uint16, 4095)
    given = input_of(tiff(values, photometric="rgb"), levels=(0.0, 4095.0))
    np.testing.assert_allclose(given.permute(1, 2, 0).numpy(), values / 4095, atol=0.6 / 255)


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (0.0, 1e5), (300.0, 900.0)])
def test_floats_of_any_range_keep_their_levels(low: float, high: float) -> None:
    values = np.linspace(low, high, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    data = tiff(values)
    facts = file_facts(data)
    assert facts is not None
    assert (facts.lowest, facts.highest) == pytest.approx((low, high))
    given = input_of(data, levels=(low, high))[0].numpy()
    np.testing.assert_allclose(given, (values - low) / (high - low), atol=0.6 / 255)


def test_geometry_is_the_same_for_bands_as_for_colours() -> None:
    values = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    deep = tiff(np.concatenate([values, values[..., :1]], axis=-1), photometric="minisblack", planarconfig="contig")
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    for resize in ("shorter_side_crop", "squash", "pad"):
        options = {"size": (20, 24), "resize": resize}
        files = Files(image=deep, plain=file.getvalue())
        four = prepare(
            Sample("a", "image"), files, Preprocess(**options, channels=4, mean=(0.5,) * 4, std=(0.5,) * 4)
        ).image
        three = prepare(Sample("a", "plain"), files, Preprocess(**options, mean=(0.5,) * 3, std=(0.5,) * 3)).image
        assert (four[:3] - three).abs().max() <= 2.1 / 255 / 0.5, resize


@pytest.mark.check("file", "DICOM, also MONOCHROME1 and with a rescale slope", "known")
def test_dicom_is_grey_in_its_own_units() -> None:
    pydicom = pytest.importorskip("pydicom")
    values = np.linspace(0, 4000, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
    for kind, slope in (("MONOCHROME2", 1), ("MONOCHROME1", 1), ("MONOCHROME2", 2)):
        file = pydicom.Dataset()
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = *SIZE, 1, kind
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation, file.RescaleSlope, file.RescaleIntercept = 15, 0, slope, 0
        file.PixelData = values.tobytes()
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, file, enforce_file_format=True)
        facts = file_facts(buffer.getvalue())
        assert facts is not None
        assert (facts.width, facts.height, facts.highest) == (SIZE[1], SIZE[0], 4000 * slope)
        given = input_of(buffer.getvalue(), levels=(0.0, 4000.0 * slope))[0].numpy()
        expected = values / 4000
        np.testing.assert_allclose(given, 1 - expected if kind == "MONOCHROME1" else expected, atol=0.6 / 255)


def swapped_profile() -> bytes:
    """sRGB's own profile with its red and blue primaries exchanged, and another name."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    entries = {bytes(profile[132 + 12 * n : 136 + 12 * n]): 136 + 12 * n for n in range(count)}
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.check("file", "a colour profile other than sRGB: converted", "said")
def test_colour_profiles_are_converted() -> None:
    """In a space whose red primary is sRGB's blue, red is sRGB's blue."""
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (255, 0, 0)).save(file, "PNG", icc_profile=swapped_profile())
    facts = file_facts(file.getvalue())
    assert facts is not None
    assert "swap" in facts.profile
    shown = np.asarray(decode_image(file.getvalue()))[0, 0].astype(int)
    assert abs(shown - (0, 0, 255)).max() <= 2


@pytest.mark.check("file", "a colour profile of images of 16 bits a colour: converted", "said")
@pytest.mark.parametrize("levels", [None, (0.0, 4095.0)])
def test_colour_profiles_of_deep_images_are_converted(levels: tuple[float, float] | None) -> None:
    values = np.zeros((*SIZE, 3), np.uint16)
    values[..., 0] = 65535 if levels is None else 4095
    data = tiff(values, photometric="rgb", iccprofile=swapped_profile())
    facts = file_facts(data)
    assert facts is not None
    assert facts.is_deep
    assert "swap" in facts.profile
    shown = input_of(data, levels=levels, clip_levels=levels is not None)[:, 0, 0].numpy()
    np.testing.assert_allclose(shown, (0, 0, 1), atol=2 / 255)
    plain = input_of(tiff(values, photometric="rgb"), levels=levels)[:, 0, 0].numpy()
    np.testing.assert_allclose(plain, (1, 0, 0), atol=1 / 255)


@pytest.mark.parametrize(
    "profile",
    [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no profile"],
    ids=["sRGB", "damaged"],
)
def test_srgb_and_damaged_profiles_change_nothing(profile: bytes) -> None:
    values = np.random.default_rng(2).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", icc_profile=profile)
    facts = file_facts(file.getvalue())
    assert facts is not None
    assert facts.profile == ""
    np.testing.assert_array_equal(np.asarray(decode_image(file.getvalue())), values)


def test_pages_are_counted() -> None:
    pages = tiff(np.zeros((3, *SIZE), np.uint8), photometric="minisblack")
    facts = file_facts(pages)
    assert facts is not None
    assert facts.pages == 3
    assert file_facts(b"no image") is None


def grey_profile() -> bytes:
    """A grey profile of gamma 1: the middle grey of a picture is far brighter in sRGB."""
    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + (256).to_bytes(2, "big") + b"\0\0"
    white = b"XYZ \0\0\0\0" + b"".join(int(value * 65536).to_bytes(4, "big") for value in (0.9642, 1.0, 0.8249))
    name = b"Linear grey\0"
    text = b"desc\0\0\0\0" + len(name).to_bytes(4, "big") + name + b"\0" * 79
    text += b"\0" * (-len(text) % 4)
    tags, at = b"", 128 + 4 + 3 * 12
    for kind, data in ((b"desc", text), (b"wtpt", white), (b"kTRC", curve)):
        tags += kind + at.to_bytes(4, "big") + len(data).to_bytes(4, "big")
        at += len(data)
    body = (3).to_bytes(4, "big") + tags + text + white + curve
    head = at.to_bytes(4, "big") + b"lcms" + b"\x02\x10\0\0" + b"mntrGRAYXYZ " + b"\0" * 12 + b"acsp" + b"\0" * 28
    head += b"".join(int(value * 65536).to_bytes(4, "big") for value in (0.9642, 1.0, 0.8249))
    return head.ljust(128, b"\0") + body


@pytest.mark.check("file", "a colour profile of grey and of palette images: converted", "said")
def test_profiles_of_grey_and_palette_images_are_converted() -> None:
    file = io.BytesIO()
    Image.new("L", (16, 12), 55).save(file, "PNG", icc_profile=grey_profile())
    facts = file_facts(file.getvalue())
    assert facts is not None
    assert "Linear grey" in facts.profile
    shown = np.asarray(decode_image(file.getvalue()))[0, 0].astype(int)
    assert abs(shown - 128).max() <= 3, "0.216 of the light is the middle of sRGB"
    palette = io.BytesIO()
    Image.new("RGB", (16, 12), (255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE).save(
        palette, "PNG", icc_profile=swapped_profile()
    )
    shown = np.asarray(decode_image(palette.getvalue()))[0, 0].astype(int)
    assert abs(shown - (0, 0, 255)).max() <= 2
    other = io.BytesIO()
    Image.new("L", (16, 12), 55).save(other, "PNG", icc_profile=swapped_profile())
    assert np.asarray(decode_image(other.getvalue()))[0, 0].tolist() == [55] * 3, "a profile of colours on a grey image"


@pytest.mark.check("file", "boxes of an image that a tag turns, drawn on the picture as shown", "known")
def test_boxes_drawn_on_the_turned_picture() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 12)).save(file, "JPEG", exif=exif)
    files, preprocess = Files(image=file.getvalue()), Preprocess(size=(16, 12), resize="squash")
    shown = Sample("a", "image", boxes=((2.0, 1.0, 6.0, 3.0),), drawn_on=(12, 16))
    truth = prepare(shown, files, preprocess).truth
    assert truth is not None
    assert (truth.nonzero().min(0).values.tolist(), truth.nonzero().max(0).values.tolist()) == ([1, 2], [2, 5])
    stored = Sample("a", "image", boxes=((1.0, 6.0, 3.0, 10.0),), drawn_on=(16, 12))
    same = prepare(stored, files, preprocess).truth
    assert same is not None
    assert same.equal(truth)


def test_the_orientation_tag_of_a_deep_tiff_counts() -> None:
    values = many(3, np.uint16, 65535)
    data = tiff(values, photometric="rgb", extratags=[(274, "H", 1, 3, True)])
    given = input_of(data, levels=(0.0, 65535.0))
    np.testing.assert_allclose(given.permute(1, 2, 0).numpy(), values[::-1, ::-1] / 65535, atol=0.6 / 255)


@pytest.mark.check("file", "a box without width or height", "said")
@pytest.mark.parametrize("boxes", [((2, 2, 8, 2),), ((2, 2, 2, 9),), ((2, 2, 8, 2), (1, 1, 4, 4))])
def test_a_box_without_height_does_not_cost_the_map(boxes: tuple) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "PNG")
    prepared = prepare(
        Sample("a", "image", boxes=boxes), Files(image=file.getvalue()), Preprocess(size=SIZE, resize="squash")
    )
    covered = None if prepared.truth is None else int(prepared.truth.sum())
    assert covered == (9 if len(boxes) == 2 else None)


@pytest.mark.check("file", "boxes that were drawn on a picture of another size, image by image", "refused")
def test_boxes_of_another_size_are_scaled_or_refused() -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "PNG")
    files, preprocess = Files(image=file.getvalue()), Preprocess(size=SIZE, resize="squash")
    small = Sample("a", "image", boxes=((2.0, 1.0, 4.0, 3.0),), drawn_on=(8, 6))
    with pytest.raises(SampleError, match="drawn on a picture of 8 x 6 pixels, the image has 16 x 12"):
        prepare(small, files, preprocess)
    scaled = Sample("a", "image", boxes=small.boxes, drawn_on=(8, 6), scale_truth=True)
    truth = prepare(scaled, files, preprocess).truth
    assert truth is not None
    assert truth.nonzero().min(0).values.tolist() == [2, 4]
    assert truth.nonzero().max(0).values.tolist() == [5, 7]
    fraction = Sample("a", "image", boxes=((0.25, 1 / 6, 0.5, 0.5),), drawn_on=(1, 1), scale_truth=True)
    same = prepare(fraction, files, preprocess).truth
    assert same is not None
    assert same.equal(truth)
    right = Sample("a", "image", boxes=small.boxes, drawn_on=(16, 12))
    assert prepare(right, files, preprocess).truth is not None
