"""Boxes and masks are read, turned and cropped like the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.errors import SampleError
from heatlas.statuses import READ_ERROR, STATUSES, TRUTH_ERROR
from heatlas.workers.images.decode import decode_input, decode_mask, prepare
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Sample
from PIL import Image

from ..support.image_bytes import PLAIN, Files, colourful, saved


def oriented(image: Image.Image, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, kind, exif=exif)


SCENE = np.zeros((16, 24), dtype=bool)
SCENE[2:9, 13:22] = True


TURNED = Preprocess(size=(24, 16), resize="squash", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_boxes_and_mask_turn_alike(orientation: int, kind: str) -> None:
    """The object is drawn white into the image, so the truth must cover exactly the bright pixels, whatever the turn."""
    image = Image.fromarray((SCENE * 255).astype(np.uint8)).convert("RGB")
    files = Files(image=oriented(image, orientation, kind), mask=saved(Image.fromarray(SCENE), "PNG"))
    preprocess = TURNED if orientation >= 5 else PLAIN
    boxed = prepare(Sample("a", "image", boxes=((13.0, 2.0, 22.0, 9.0),)), files, preprocess)
    masked = prepare(Sample("a", "image", mask_uri="mask"), files, preprocess)
    assert decode_input(files["image"], Preprocess())[1] == orientation
    assert (boxed.height, boxed.width) == preprocess.size
    for prepared in (boxed, masked):
        assert prepared.truth is not None
        assert prepared.truth.dtype == torch.bool
        assert prepared.truth.sum() == 63
        assert (prepared.image[0] > 0.5).eq(prepared.truth).all()


def with_boxes(*boxes) -> torch.Tensor | None:
    files = Files(image=saved(colourful(), "PNG"))
    return prepare(Sample("a", "image", boxes=tuple(tuple(map(float, box)) for box in boxes)), files, PLAIN).truth


def test_no_boxes_and_no_mask_is_no_truth() -> None:
    assert with_boxes() is None


def test_boxes_are_united_and_clipped() -> None:
    truth = with_boxes((-5, -5, 3, 2), (20, 10, 999, 999))
    assert truth is not None
    expected = torch.zeros(16, 24, dtype=torch.bool)
    expected[:2, :3] = True
    expected[10:, 20:] = True
    assert truth.equal(expected)


def test_a_pixel_belongs_to_the_box_that_holds_its_centre() -> None:
    truth = with_boxes((1.5, 0.51, 3.5, 2.49))
    assert truth is not None
    assert truth.nonzero().tolist() == [[1, 1], [1, 2]]


def test_a_box_outside_the_crop_is_an_empty_truth() -> None:
    files = Files(image=saved(Image.new("RGB", (100, 20)), "PNG"))
    truth = prepare(Sample("a", "image", boxes=((0.0, 0.0, 20.0, 20.0),)), files, Preprocess(size=(20, 20))).truth
    assert truth is not None
    assert not truth.any()


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ((30, 2, 40, 9), "lies outside its image of 24 x 16 pixels"),
        ((5, 2, 4, 9), "is empty or inverted: it must be x0 < x1 and y0 < y1"),
        ((5, 9, 8, 2), "is empty or inverted"),
        ((float("nan"), 2, 5, 9), "is not finite"),
        ((0, 0, float("inf"), 9), "is not finite"),
    ],
)
def test_bad_boxes(box, text: str) -> None:
    with pytest.raises(SampleError) as caught:
        with_boxes((0, 0, 1, 1), box)
    assert caught.value.status == TRUTH_ERROR
    assert text in caught.value.text
    assert TRUTH_ERROR in STATUSES


def test_masks() -> None:
    files = Files(
        image=saved(colourful(), "PNG"),
        empty=saved(Image.new("L", (24, 16)), "PNG"),
        small=saved(Image.new("L", (24, 15)), "PNG"),
        text=b"no mask",
    )
    empty = prepare(Sample("a", "image", mask_uri="empty"), files, PLAIN).truth
    assert empty is not None
    assert not empty.any()
    for uri, status, text in (
        ("small", TRUTH_ERROR, "the mask has 24 x 15 pixels, its image is stored with 24 x 16"),
        ("text", TRUTH_ERROR, "the mask cannot be decoded: not an image: it is text"),
        ("gone", READ_ERROR, "mask: cannot read gone: no such file"),
    ):
        with pytest.raises(SampleError) as caught:
            prepare(Sample("a", "image", mask_uri=uri), files, PLAIN)
        assert caught.value.status == status
        assert text in caught.value.text


def test_mask_modes() -> None:
    palette = Image.fromarray(SCENE.astype(np.uint8), "L")
    palette.putpalette([9, 9, 9, 0, 0, 0])  # index 1 is black, and counts
    alpha = Image.merge(
        "RGBA",
        [Image.new("L", (24, 16))] * 2 + [Image.fromarray(SCENE.astype(np.uint8))] + [Image.new("L", (24, 16), 255)],
    )
    deep = Image.fromarray(SCENE.astype(np.uint16) * 256)
    for mask in (Image.fromarray(SCENE), palette, alpha, deep):
        np.testing.assert_array_equal(decode_mask(saved(mask, "PNG")), SCENE)
