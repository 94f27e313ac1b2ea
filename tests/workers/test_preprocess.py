"""Preprocessing against torchvision's own transforms, geometry by hand, and what the user is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.errors import SettingsError
from heatlas.workers.images import geometry
from heatlas.workers.images.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocess,
    preprocess_from_preset,
    with_overrides,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

SIZES = [(64, 48), (48, 64), (300, 200), (201, 333), (33, 500), (24, 24), (5, 9), (1, 1), (40, 1)]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("crop", "shorter"), [(24, 27), (24, 24), (25, 30), (31, 20), (24, 23)])
def test_equals_torchvisions_preset(size: tuple[int, int], interpolation: str, crop: int, shorter: int) -> None:
    preset = ImageClassification(
        crop_size=crop, resize_size=shorter, interpolation=InterpolationMode(interpolation), mean=(0.5, 0.4, 0.3)
    )
    image = noise(*size)
    assert torch.equal(preprocess_from_preset(preset).tensor(image), preset(image))


def test_no_resize_to_is_the_crop_size() -> None:
    image = noise(75, 50)
    preset = ImageClassification(crop_size=24, resize_size=24)
    assert torch.equal(Preprocess(size=(24, 24)).tensor(image), preset(image))


def test_squash_is_pillows_resize() -> None:
    image = noise(50, 30)
    expected = np.asarray(image.resize((32, 16), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    expected = (expected - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    given = Preprocess(size=(16, 32), resize="squash").tensor(image)
    np.testing.assert_allclose(given.permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_pad_shows_the_whole_image_on_mean_colour() -> None:
    preprocess = Preprocess(size=(20, 20), resize="pad", mean=(0.2, 0.4, 0.6), std=(1.0, 1.0, 1.0))
    view = np.asarray(preprocess.view(Image.new("RGB", (40, 20), (255, 0, 0))))
    assert (view[5:15] == (255, 0, 0)).all()
    assert (view[:5] == (51, 102, 153)).all()
    assert (view[15:] == (51, 102, 153)).all()
    assert preprocess.tensor(Image.new("RGB", (40, 20)))[:, :5].abs().max() < 1e-6


def test_rectangular_crop_is_covered_by_the_image() -> None:
    for width, height in SIZES:
        result = Preprocess(size=(10, 30)).geometry(height, width)
        assert result.top >= 0
        assert result.left >= 0
        assert result.resized[0] == 10 or result.resized[1] == 30


def test_an_image_one_pixel_high_is_cropped_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess = Preprocess(size=(24, 24), resize_to=27)
    image = noise(3000, 2)
    whole = preprocess.tensor(image)
    monkeypatch.setattr(geometry, "_LARGEST_RESIZED", 1000)
    part = preprocess.tensor(image)
    assert ((whole - part).abs() * torch.tensor(IMAGENET_STD).view(3, 1, 1)).max() <= 1.01 / 255
    monkeypatch.undo()
    assert Preprocess().tensor(Image.new("RGB", (30_000, 1), (255, 255, 255))).shape == (3, 224, 224)


def test_grey_input_has_one_channel_and_an_rgb_view() -> None:
    preprocess = Preprocess(size=(8, 8), mean=(0.5,), std=(0.5,), channels=1)
    image = Image.new("RGB", (16, 16), (255, 255, 255))
    assert torch.equal(preprocess.tensor(image), torch.ones(1, 8, 8))
    assert preprocess.view(image).mode == "RGB"


def test_view_is_what_the_tensor_shows() -> None:
    preprocess = Preprocess(size=(24, 30), resize_to=28)
    image = noise(70, 50)
    pixels = preprocess.tensor(image) * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(
        3, 1, 1
    )
    np.testing.assert_allclose(pixels.permute(1, 2, 0) * 255, np.asarray(preprocess.view(image)), atol=1e-3)


def test_boxes_by_hand() -> None:
    crop = Preprocess(size=(10, 10), resize_to=20).geometry(height=40, width=80)  # resized to 20 x 40, window at 5, 15
    assert (crop.resized, crop.top, crop.left) == ((20, 40), 5, 15)
    assert crop.box((30.0, 10.0, 50.0, 30.0)) == (0, 0, 10, 10)
    squash = Preprocess(size=(10, 30), resize="squash").geometry(height=40, width=60)
    assert squash.box((2.0, 4.0, 60.0, 40.0)) == (1, 1, 30, 10)
    pad = Preprocess(size=(10, 10), resize="pad").geometry(height=10, width=20)
    assert pad.box((0.0, 0.0, 20.0, 10.0)) == (0, 2, 10, 7)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["squash", "pad", "shorter_side_crop"]),
    st.none() | st.integers(1, 50),
)
def test_masks_go_where_the_pixels_go(height: int, width: int, size: tuple[int, int], resize, resize_to) -> None:
    """A mask transformed by hand, pixel by pixel: the source pixel that contains the centre, False in padding."""
    preprocess = Preprocess(size=size, resize=resize, resize_to=resize_to if resize == "shorter_side_crop" else None)
    result = preprocess.geometry(height, width)
    mask = np.random.default_rng(height * 61 + width).random((height, width)) < 0.5
    moved = result.mask(mask)
    for y in range(size[0]):
        for x in range(size[1]):
            row, column = y + result.top, x + result.left
            inside = 0 <= row < result.resized[0] and 0 <= column < result.resized[1]
            source = (
                (2 * row + 1) * height // (2 * result.resized[0]),
                (2 * column + 1) * width // (2 * result.resized[1]),
            )
            assert moved[y, x] == (inside and mask[source])


def test_image_and_mask_stay_aligned() -> None:
    """A mask drawn into the image as white, moved with nearest: both show the same pixels."""
    mask = np.zeros((50, 90), dtype=bool)
    mask[10:30, 35:70] = True
    image = Image.fromarray(np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2))
    for preprocess in (
        Preprocess(size=(32, 32), interpolation="nearest", resize_to=40),
        Preprocess(size=(20, 30), interpolation="nearest", resize="squash"),
        Preprocess(size=(32, 40), interpolation="nearest", resize="pad", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    ):
        seen = np.asarray(preprocess.view(image))[..., 0] == 255
        np.testing.assert_array_equal(seen, preprocess.geometry(50, 90).mask(mask))


def test_overrides_change_what_they_name_and_scale_what_belongs() -> None:
    result = Preprocess(size=(224, 224), resize_to=232, interpolation="bicubic")
    assert with_overrides(result, {"size": 448}) == Preprocess(size=(448, 448), resize_to=464, interpolation="bicubic")
    assert with_overrides(result, {"resize": "squash"}).resize_to is None
    assert with_overrides(result, {"size": [100, 50], "resize_to": 60}).resize_to == 60
    assert with_overrides(result, {"mean": [0.5], "std": [0.5]}).channels == 1
    assert with_overrides(result, {"size": None, "mean": None}) == result


@pytest.mark.unchecked_types
def test_blue_first() -> None:
    image, mean, std = noise(20, 20), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    rgb = Preprocess(size=(20, 20), mean=mean[::-1], std=std[::-1]).tensor(image)
    assert torch.equal(Preprocess(size=(20, 20), mean=mean, std=std, channel_order="bgr").tensor(image), rgb.flip(0))


def test_squash_and_pad_may_be_larger_than_what_is_cut_out() -> None:
    image = noise(50, 30)
    squashed = Preprocess(size=(16, 16), resize="squash", resize_to=20)
    assert squashed.geometry(30, 50).resized == (20, 20)
    assert np.array_equal(
        np.asarray(squashed.view(image)),
        np.asarray(image.resize((20, 20), Image.Resampling.BILINEAR).crop((2, 2, 18, 18))),
    )
    assert Preprocess(size=(16, 16), resize="pad", resize_to=(20, 20)).geometry(30, 50).resized == (12, 20)
    assert Preprocess(size=(16, 20), resize_to=(20, 25)).geometry(30, 50).resized == (20, 33)


@pytest.mark.unchecked_types
@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"size": (0, 5)}, "preprocess.size must be a positive height and width in pixels, got (0, 5)"),
        ({"size": (1, 2, 3)}, "got (1, 2, 3)"),
        ({"size": "big"}, "got 'big'"),
        ({"resize": "squach"}, "must be one of shorter_side_crop, squash, pad, got 'squach'; did you mean 'squash'?"),
        ({"interpolation": "cubic"}, "did you mean 'bicubic'?"),
        ({"resize_to": (9, 0)}, "must be a positive number of pixels, or height and width, got (9, 0)"),
        ({"channel_order": "gbr"}, "preprocess.channel_order must be rgb or, with 3 channels, bgr, got 'gbr'"),
        ({"channels": 1, "mean": [0.5], "std": [0.5], "channel_order": "bgr"}, "preprocess.channel_order must be rgb"),
        ({"resize_to": 0}, "must be a positive number of pixels, or height and width, got 0"),
        ({"mean": (0.5, 0.5, float("nan"))}, "preprocess.mean must be 3 finite numbers"),
        ({"mean": (0.5,)}, "preprocess.std must be 1 finite numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "preprocess.std must be above 0"),
        ({"channels": 0}, "preprocess.channels must be 3 (RGB), 1 (grey) or the number of the file's bands, got 0"),
        ({"sise": 3}, "unknown preprocess setting 'sise', there are size,"),
    ],
)
def test_messages(setting: dict, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        with_overrides(Preprocess(), setting)
    assert text in str(caught.value)
