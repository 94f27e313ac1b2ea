"""Heatlas's input against the image processor of every class of transformers, every data config of timm and every preset of torchvision.

Each is held to 2 of 255 grey levels on a picture of odd size, or refused with the reason.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from heatlas.errors import SampleError
from heatlas.workers.images.own_processor import processor_of, processor_text
from heatlas.workers.images.preprocess import Preprocess, preprocess_from_preset, with_overrides
from heatlas.workers.models.huggingface import preprocess_from_processor
from heatlas.workers.models.timm import preprocess_from_timm
from PIL import Image

LEVELS = 2.0
LARGE = re.compile(
    "Donut|DepthPro|Nougat|Sam|DeepseekOcr|Aria|UnlimitedOcr|Step3|Owl|PPChart|PPDoc|PPFormula|Sapiens|Granite|SmolVLM|Idefics|UltraVBert"
    "|PerceptionLM|MiniCPM|Detr|DetR|MaskFormer|Mask2Former|OneFormer|Yolos|TextNet|RTDetr|Emu3|Gemma4|UVDoc|Chameleon|Molmo"
)
"""Classes whose input is large by default, none of them a classifier's; they are checked in the other configuration, and here by soak."""


def odd_picture(height: int = 97, width: int = 61) -> Image.Image:
    """Neither square nor of the sizes that heatlas measures on; ramps with edges and noise."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 2, columns * 4, (rows // 9 + columns // 7) % 2 * 200], axis=-1) % 256
    return Image.fromarray((pixels + rng.integers(0, 24, pixels.shape)).clip(0, 255).astype(np.uint8))


def apart(preprocess: Preprocess, theirs: torch.Tensor, image: Image.Image) -> float:
    """Largest difference in grey levels."""
    ours = preprocess.tensor(image)
    assert ours.shape == theirs.shape
    return float(((ours - theirs).abs() * torch.tensor(preprocess.std).view(-1, 1, 1)).max() * 255)


def processor_classes() -> list[str]:
    auto = pytest.importorskip("transformers.models.auto.image_processing_auto")
    names = {
        name
        for value in auto.IMAGE_PROCESSOR_MAPPING_NAMES.values()
        for name in (value.values() if isinstance(value, dict) else value)
        if name
    }
    return sorted(names)


def other_configuration(kind: type) -> dict:
    """Another than the default where the class has the settings: smaller, not normalised, another filter."""
    said = {}
    size, crop = getattr(kind, "size", None), getattr(kind, "crop_size", None)
    if isinstance(size, dict):
        said["size"] = dict.fromkeys(size, 48)
    if isinstance(crop, dict):
        said["crop_size"] = dict.fromkeys(crop, 40)
    return {**said, "do_normalize": False, "resample": 2}


def check(name: str, settings: Callable[[type], dict]) -> str:
    """How the class is treated: `same`, `own` (its processor runs), or the reason for which it is refused."""
    import transformers

    image = odd_picture()
    try:
        kind = getattr(transformers, name)
        processor = kind(**settings(kind))
        preprocess = preprocess_from_processor(processor)
    except Exception as error:
        return str(error)
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
    if (levels := apart(preprocess, torch.as_tensor(theirs).float(), image)) > LEVELS:
        return f"WRONG by {levels:.0f}: {preprocess}"
    return "own" if preprocess.processor else "same"


def as_is(kind: type) -> dict:
    return {}


@pytest.mark.check("input", "every image processor class of transformers, in two configurations", "known")
@pytest.mark.parametrize(
    ("settings", "large", "same", "own"),
    [
        (as_is, False, 20, 15),
        pytest.param(as_is, True, 5, 5, marks=pytest.mark.soak),
        (other_configuration, False, 30, 20),
        (other_configuration, True, 5, 5),
    ],
)
def test_every_image_processor_of_transformers(
    settings: Callable[[type], dict], large: bool, same: int, own: int
) -> None:
    names = [name for name in processor_classes() if (LARGE.search(name) is not None) == large]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        treated = {name: check(name, settings) for name in names if name != "TimmWrapperImageProcessor"}
    assert not (wrong := {name: value for name, value in treated.items() if value.startswith("WRONG")}), wrong
    assert all(value.strip() for value in treated.values()), "a refusal has a reason"
    kinds = Counter(treated.values())
    assert kinds["same"] >= same, kinds
    assert kinds["own"] >= own, kinds


@pytest.mark.check(
    "input", "blue first, `do_normalize: false`, `do_rescale: false`, DeiT's and LeViT's chains", "known"
)
@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("MobileViTImageProcessorPil", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}, {"channel_order": "bgr"}),
        ("ViTImageProcessorPil", {"do_normalize": False, "size": {"height": 24, "width": 24}}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ("ViTImageProcessorPil", {"do_rescale": False, "size": {"height": 24, "width": 24}}, {"mean": (0.5 / 255,) * 3}),
        ("DeiTImageProcessorPil", {}, {"resize": "squash", "resize_to": 256}),
        ("LevitImageProcessorPil", {}, {"resize": "shorter_side_crop", "resize_to": 256}),
    ],
)  # fmt: skip
def test_what_processors_do_is_measured(name: str, settings: dict, expected: dict) -> None:
    kind = getattr(pytest.importorskip("transformers"), name)
    preprocess = preprocess_from_processor(kind(**settings))
    for field, value in expected.items():
        measured = getattr(preprocess, field)
        assert measured == (pytest.approx(value, rel=1e-4) if isinstance(value, tuple) else value), field
    image = odd_picture()
    theirs = torch.as_tensor(np.array(kind(**settings)(images=image)["pixel_values"][0], copy=True, order="C"))
    assert apart(preprocess, theirs, image) <= LEVELS


def timm_configs() -> list[dict]:
    """One of each kind that timm publishes, the smallest: mean and std do not matter to where pixels go."""
    timm = pytest.importorskip("timm")
    kinds = {}
    for name in timm.list_pretrained():
        config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        channels, height, width = config["input_size"]
        kind = (channels, height == width, config["interpolation"], config["crop_pct"], config["crop_mode"])
        if kind not in kinds or kinds[kind]["input_size"] > config["input_size"]:
            kinds[kind] = config
    return list(kinds.values())


@pytest.mark.check("input", "every data config that timm publishes", "known")
def test_every_data_config_of_timm() -> None:
    data = pytest.importorskip("timm.data")
    image, kinds = odd_picture(), Counter()
    for config in timm_configs():
        if config["input_size"][0] != 3:
            continue
        preprocess = preprocess_from_timm(config)
        theirs = data.create_transform(**config, is_training=False)(image)
        assert apart(preprocess, theirs, image) <= LEVELS, config
        kinds[bool(preprocess.processor)] += 1
    assert kinds[False] > 10, kinds


@pytest.mark.check("input", "timm's crop modes, shares, filters and rectangular inputs", "known")
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("share", [None, 0.8, 1.0])
@pytest.mark.parametrize("size", [(3, 32, 32), (3, 24, 40)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos"])
def test_other_data_configs_of_timm(mode: str, share: float | None, size: tuple, interpolation: str) -> None:
    data = pytest.importorskip("timm.data")
    config = {"input_size": size, "crop_pct": share, "crop_mode": mode, "interpolation": interpolation,
              "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}  # fmt: skip
    preprocess = preprocess_from_timm(config)
    theirs = data.create_transform(**config, is_training=False)(odd_picture())
    assert apart(preprocess, theirs, odd_picture()) <= LEVELS, preprocess


@pytest.mark.check("input", "the transforms of every published weight of torchvision", "known")
def test_every_preset_of_torchvision() -> None:
    presets = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        for entry in torchvision.models.get_model_weights(name):
            preset = entry.transforms()
            presets[str((preset.crop_size, preset.resize_size, preset.interpolation, preset.mean, preset.std))] = preset
    assert len(presets) > 10
    for said, preset in presets.items():
        assert apart(preprocess_from_preset(preset), preset(odd_picture()), odd_picture()) <= LEVELS, said


@pytest.mark.check("input", "a processor whose pixels heatlas's own steps do not give: it runs itself", "said")
def test_the_processor_itself_runs_where_steps_differ_and_settings_replace_it() -> None:
    """A classifier's processor that resizes by the nearest pixel, as torchvision does and Pillow does not."""
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(size={"height": 24, "width": 24}, resample=0)
    preprocess = preprocess_from_processor(processor)
    assert "ViTImageProcessor" in preprocess.processor
    assert preprocess.resize == "squash"
    theirs = processor(images=odd_picture(), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(preprocess.tensor(odd_picture()), theirs)
    assert processor_of(preprocess.processor) is processor_of(preprocess.processor), "built once"
    own = with_overrides(preprocess, {"interpolation": "bilinear"})
    assert own.processor == ""
    assert own.size == (24, 24)


def test_a_processor_that_fails_on_one_image_costs_that_image_alone() -> None:
    text = processor_text("hf", name="ViTImageProcessor", settings={"size": {"height": 8, "width": 9}})
    with pytest.raises(SampleError, match=r"image processor gives \(3, 8, 9\), expected \(3, 8, 8\)"):
        Preprocess(size=(8, 8), processor=text).tensor(odd_picture())
    text = processor_text("hf", name="VitMatteImageProcessor", settings={})
    with pytest.raises(SampleError, match=r"the model's own image processor fails: .*trimaps"):
        Preprocess(size=(8, 8), processor=text).tensor(odd_picture())
