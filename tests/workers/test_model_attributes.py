"""What a user's model brings along for preprocessing: taken as it is, measured, or refused with the reason; never ignored in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from heatlas.errors import ModelError, SettingsError
from heatlas.pipeline.explain.given import named_objects
from heatlas.workers.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, segmentation_note, with_overrides
from heatlas.workers.images.preprocess import preprocess_from_preset as from_preset
from heatlas.workers.models.built_model import UNSTATED
from heatlas.workers.models.given_model import load_given
from heatlas.workers.models.model_attributes import attributes_of
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms._presets import SemanticSegmentation

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def odd_picture(height: int = 97, width: int = 61) -> Image.Image:
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 2, columns * 4, (rows // 9 + columns // 7) % 2 * 200], axis=-1) % 256
    return Image.fromarray((pixels + rng.integers(0, 24, pixels.shape)).clip(0, 255).astype(np.uint8))


def net(preprocess: Any = None) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if preprocess is not None:
        object.__setattr__(model, "preprocess", preprocess)
    return model


def classic(*first: Callable) -> transforms.Compose:
    return transforms.Compose([*first, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def blue_first(image: Image.Image) -> torch.Tensor:
    """As networks of Caffe take images: BGR in 0 to 255 without their mean."""
    pixels = np.asarray(image.resize((32, 24), Image.Resampling.BILINEAR), np.float32)[..., ::-1] - (104, 117, 123)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()


class AlbumentationsLike:
    """Takes and gives arrays by name, and nothing else."""

    def __call__(self, *arguments: object, image: np.ndarray | None = None) -> dict:
        if arguments or image is None:
            raise KeyError("You have to pass data to augmentations as named arguments, for example: aug(image=image)")
        small = np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling.BICUBIC), np.float32)
        return {"image": ((small / 255 - MEAN) / STD).astype(np.float32)}


@pytest.mark.check("input", "a factory's `preprocess`: transforms of torchvision (v1, v2) and timm, of albumentations' kind, a function", "known")  # fmt: skip
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (classic(transforms.Resize(40), transforms.CenterCrop(32)), Preprocess((32, 32), resize_to=40, mean=MEAN, std=STD)),
        (classic(transforms.Resize((24, 48))), Preprocess((24, 48), "squash", mean=MEAN, std=STD)),
        (lambda image: classic(transforms.Resize((24, 48)))(image)[None], Preprocess((24, 48), "squash", mean=MEAN, std=STD)),
        (
            v2.Compose([v2.Resize((32, 32), interpolation=v2.InterpolationMode.BICUBIC), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]),
            Preprocess((32, 32), "squash", interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3),
        ),
        (blue_first, Preprocess((24, 32), "squash", channel_order="bgr", mean=(104 / 255, 117 / 255, 123 / 255), std=(1 / 255,) * 3)),
        (AlbumentationsLike(), Preprocess((40, 40), "squash", interpolation="bicubic", mean=MEAN, std=STD)),
    ],
    ids=["resize and crop", "squash", "batch axis", "v2", "Caffe", "albumentations"],
)  # fmt: skip
def test_functions_are_measured(given: Callable, expected: Preprocess) -> None:
    preprocess = attributes_of(net(given), "nets:build()").preprocess
    assert (preprocess.size, preprocess.resize, preprocess.resize_to) == (expected.size, expected.resize, expected.resize_to)  # fmt: skip
    assert (preprocess.interpolation, preprocess.channel_order) == (expected.interpolation, expected.channel_order)
    assert preprocess.mean == pytest.approx(expected.mean, abs=1e-4)
    assert preprocess.std == pytest.approx(expected.std, rel=1e-3)
    result = given(image=np.asarray(odd_picture()))["image"].transpose(2, 0, 1) if isinstance(given, AlbumentationsLike) else given(odd_picture())  # fmt: skip
    levels = (torch.as_tensor(result) - preprocess.tensor(odd_picture())).abs() * torch.tensor(preprocess.std).view(
        3, 1, 1
    )
    assert float(levels.max()) * 255 <= 2.0


def darker(image: Image.Image) -> torch.Tensor:
    """Steps that no settings of heatlas have: a picture that is smoothed first."""
    return transforms.ToTensor()(image.reduce(2).resize((32, 32), Image.Resampling.BILINEAR))


def test_a_function_that_no_settings_equal_runs_itself() -> None:
    brought = attributes_of(net(darker), "nets:build()")
    assert brought.preprocess.processor
    assert " at 0x" not in brought.preprocess.processor, "the same text in every process"
    assert torch.equal(brought.preprocess.tensor(odd_picture()), darker(odd_picture()))


@pytest.mark.check("input", "a factory's `preprocess` that is an image processor of transformers or a preset for segmentation", "known")  # fmt: skip
def test_processors_and_presets_are_taken() -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessorPil(size={"height": 24, "width": 24}, image_mean=MEAN, image_std=STD)
    preprocess = attributes_of(net(processor), "nets:build()").preprocess
    assert (preprocess.size, preprocess.mean) == ((24, 24), pytest.approx(MEAN, abs=1e-4))
    brought = attributes_of(net(SemanticSegmentation(resize_size=40)), "nets:build()")
    assert (brought.preprocess.size, brought.preprocess.resize_to) == ((40, 40), 40)
    assert "middle 40x40 is taken" in brought.notes[0]


def rarely_turned() -> Callable:
    """Turns an image in 1 of 10 calls, for the first time in the 25th."""
    chance = np.random.default_rng(8)
    plain = classic(transforms.Resize((32, 32)))
    return lambda image: plain(image.rotate(180) if chance.random() < 0.1 else image)


class OwnMethod(nn.Module):
    """`preprocess` is a step of its own forward, on tensors."""

    def preprocess(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.preprocess(x).mean((2, 3))


@pytest.mark.check("input", "a factory's `preprocess` that is random, has no fixed size, no image to take, or is no function", "refused")  # fmt: skip
@pytest.mark.parametrize(
    ("model", "text"),
    [
        (net(classic(transforms.Resize((32, 32)), transforms.RandomHorizontalFlip(0.3))), "random crops and flips belong to training"),
        (net(rarely_turned()), "random crops and flips belong to training"),
        (net(classic(transforms.Resize(32))), "no fixed size"),
        (net(transforms.Compose([transforms.Resize((32, 32))])), "returns a Image for an image, not a tensor"),
        (net(lambda image: transforms.ToTensor()(image.rotate(90).resize((32, 32)))), "in another way than by resizing"),
        (net(nn.Sequential(nn.BatchNorm2d(3))), "is a Sequential, which heatlas cannot take"),
        (OwnMethod(), "give it another name and say the preprocessing in settings"),
        (net("transform.yaml"), "it is a str"),
    ],
    ids=["random", "rarely random", "any size", "no tensor", "rotated", "module", "method", "text"],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_with_the_reason(model: nn.Module, text: str) -> None:
    with pytest.raises(ModelError, match=r"nets:build\(\)") as caught:
        attributes_of(model, "nets:build()")
    assert text in str(caught.value)


@pytest.mark.check("input", "a timm model that a factory returns without `preprocess`", "known")
def test_a_timm_model_of_a_factory_has_timm_s_data_config() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=1)
    brought = attributes_of(model, "nets:build()")
    assert brought.preprocess.mean == (0.5, 0.5, 0.5)
    assert brought.preprocess.interpolation == "bicubic"
    assert "timm's data config" in brought.origin


@pytest.mark.check("input", "attributes such as `transform`, which are not read", "said")
def test_attributes_of_other_names_are_said() -> None:
    model = net()
    model.transform = transforms.ToTensor()
    brought = attributes_of(model, "nets:build()")
    assert (brought.preprocess, brought.origin) == (Preprocess(), UNSTATED)
    assert "has an attribute `transform`, which is not read; call it `preprocess`" in brought.notes[0]


@pytest.mark.check("input", "what a model object of `explain_dataset` brings along, under `preprocess=`", "known")
def test_objects_bring_their_attributes_too() -> None:
    given = classic(transforms.Resize((24, 48)))
    for model, argument in ((net(given), None), (net(), given), (net("nothing"), given)):
        with named_objects(model, [1], argument, None) as said:
            loaded = load_given(said["model"].partition(":")[2])
        assert loaded.preprocess.size == (24, 48)
        assert "preprocess" not in said
    with named_objects(net(given), [1], {"size": 20}, ["a", "b", "c", "d"]) as said:
        loaded = load_given(said["model"].partition(":")[2])
        assert said["preprocess"] == {"size": 20}
    assert loaded.class_names == ("a", "b", "c", "d")
    assert loaded.preprocess.resize == "squash"
    with (
        pytest.raises(ModelError, match="preprocess= is a function"),
        named_objects(net(), [1], lambda image: image, None),
    ):
        pass


@pytest.mark.check(
    "input", "`preprocess.channel_order bgr` of networks that were trained on images of OpenCV or Caffe", "known"
)
def test_blue_first_is_a_setting() -> None:
    caffe = {
        "channel_order": "bgr",
        "mean": [104 / 255, 117 / 255, 123 / 255],
        "std": [1 / 255] * 3,
        "size": [24, 32],
        "resize": "squash",
    }
    given = with_overrides(Preprocess(), caffe).tensor(odd_picture())
    torch.testing.assert_close(given, blue_first(odd_picture()), atol=1e-2, rtol=0)


@pytest.mark.check(
    "input", "another order of channels without saying mean and std in it; mean and std of values up to 255", "asked"
)
def test_the_order_of_mean_and_the_unit_of_mean_are_asked_for() -> None:
    with pytest.raises(SettingsError) as caught:
        with_overrides(Preprocess(), {"channel_order": "bgr"})
    for text in (
        "0.406 0.456 0.485 if each colour keeps its own",
        "0.485 0.456 0.406 if the numbers keep their places",
    ):
        assert text in str(caught.value)
    turned = {"channel_order": "bgr", "mean": IMAGENET_MEAN[::-1], "std": IMAGENET_STD[::-1]}
    torch.testing.assert_close(
        with_overrides(Preprocess(), turned).tensor(odd_picture()), Preprocess().tensor(odd_picture()).flip(0)
    )
    assert with_overrides(Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3), {"channel_order": "bgr"}).channel_order == "bgr"
    for said in ({"mean": (104, 117, 123)}, {"mean": (0.5, 0.5, 0.5), "std": (58.4, 57.1, 57.4)}):
        with pytest.raises(SettingsError, match=r"look like those of values in \[0, 255\]: divide mean and std by 255"):
            with_overrides(Preprocess(), said)


@pytest.mark.check(
    "input", "the transforms of every published weight of torchvision for segmentation: the middle square", "said"
)
def test_every_segmentation_preset_of_torchvision() -> None:
    square, tall, presets = odd_picture(97, 97), odd_picture(97, 61), set()
    for name in torchvision.models.list_models(module=torchvision.models.segmentation):
        for entry in torchvision.models.get_model_weights(name):
            preset = entry.transforms()
            preprocess, std = from_preset(preset), torch.tensor(preset.std).view(3, 1, 1)
            said = (preprocess.size, preprocess.mean, preprocess.interpolation)
            assert segmentation_note(preset)
            if said in presets:
                continue
            presets.add(said)
            whole, side = preset(tall), preprocess.size[0]
            top = round((whole.shape[1] - side) / 2)
            middle = whole[:, top : top + side]
            for theirs, image in ((preset(square), square), (middle, tall)):
                assert float(((theirs - preprocess.tensor(image)).abs() * std).max() * 255) <= 2.0, name
    assert presets
