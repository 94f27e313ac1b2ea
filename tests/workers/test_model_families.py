"""timm, Hugging Face, TorchScript and exported programs: built from files of the test's own, explained, and refused with a remedy."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from heatlas.engine.layers.blocks import block_layers
from heatlas.engine.methods.sise import SISE
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.built_model import UNSTATED
from heatlas.workers.models.huggingface import preprocess_from_processor
from heatlas.workers.models.timm import preprocess_from_timm
from PIL import Image
from safetensors.torch import save_file

from ..support.load_models import load, refusal
from ..support.small_program import explained, scripted, small_net


def picture(height: int = 60, width: int = 80) -> Image.Image:
    ramp = np.add.outer(np.arange(height) * 2, np.arange(width))[..., None] * np.array([1, 2, 3]) % 256
    return Image.fromarray(ramp.astype(np.uint8))


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 48)])
def test_timm_reads_classes_and_channels_from_the_file(tmp_path: Path, channels: int, side: int) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t", num_classes=5, in_chans=channels).state_dict(), tmp_path / "w.safetensors")
    loaded = load(f"timm:resnet10t@{tmp_path}/w.safetensors", size=(side, side))
    assert (loaded.num_classes, loaded.class_names, loaded.preprocess.channels) == (5, None, channels)
    assert loaded.preprocess.resize_to == round(201 * side / 176), "87.5 % of the shorter side, as timm's config says"
    assert loaded.origins["mean"] == "timm's data config of resnet10t"
    assert loaded.origins["size"] == "setting preprocess.size"
    assert len(block_layers(loaded.module, torch.zeros(1, channels, side, side))) >= 4
    explained(loaded.module, loaded, mu=0.7)


def test_timm_without_its_file_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    assert "timm has no model 'resnet10x'; did you mean" in refusal("timm:resnet10x")
    assert "must be a file that ends in .safetensors" in refusal("timm:resnet10t@a1_in1k")
    real = timm.create_model

    def offline(name: str, pretrained: bool = False, **options):
        if pretrained:
            raise OSError("no route to host")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    text = refusal("timm:resnet10t.c3_in1k")
    assert "cannot get timm's weights of resnet10t.c3_in1k (no route to host)" in text
    assert "timm:resnet10t.c3_in1k@/path/to/weights.safetensors" in text
    torch.save({"fc.weight": torch.zeros(3, 512)}, tmp_path / "w.pth")
    assert "do not fit the model" in refusal(f"timm:resnet10t@{tmp_path}/w.pth")


@pytest.mark.parametrize(
    "config",
    [
        {"input_size": (3, 32, 32), "crop_pct": 0.875, "interpolation": "bicubic"},
        {"input_size": (3, 32, 32), "crop_pct": 1.0, "interpolation": "bilinear", "crop_mode": "squash"},
        {"input_size": (3, 24, 40), "crop_pct": 1.0, "interpolation": "bilinear", "crop_mode": "squash"},
    ],
)
def test_preprocessing_equals_timm_s(config: dict) -> None:
    data = pytest.importorskip("timm.data")
    config |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    theirs = data.create_transform(**config, is_training=False)(picture())
    ours = preprocess_from_timm(config).tensor(picture())
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-5


@pytest.fixture
def hf_folder(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "ant", 1: "bee", 2: "cat"},
    )
    folder = tmp_path / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.ResNetForImageClassification(config).save_pretrained(folder)
    said = {"do_resize": True, "size": {"height": 32, "width": 48}, "resample": 2, "do_normalize": True,
            "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "image_processor_type": "ViTImageProcessor"}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def test_hugging_face_folder(hf_folder: Path) -> None:
    loaded = load(f"hf:{hf_folder}")
    assert loaded.class_names == ("ant", "bee", "cat")
    assert loaded.preprocess == Preprocess((32, 48), "squash", None, "bilinear", (0.5,) * 3, (0.25,) * 3)
    assert loaded.origins["size"] == f"preprocessor_config.json of {hf_folder}"
    explained(loaded.module, loaded)
    again = hf_folder.rename(hf_folder.with_name("elsewhere"))
    assert load(f"hf:{again}").digest == loaded.digest, "the place does not matter"
    assert load(f"hf:{again}", mean=(0.4, 0.5, 0.5)).digest != loaded.digest
    config = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    assert load(f"hf:{again}").digest != loaded.digest, "the same weights in another function"


def test_hugging_face_without_processor_or_files(hf_folder: Path) -> None:
    (hf_folder / "preprocessor_config.json").unlink()
    loaded = load(f"hf:{hf_folder}", size=(32, 32))
    assert loaded.origins["mean"] == UNSTATED
    (hf_folder / "model.safetensors").unlink()
    assert "give a folder that save_pretrained wrote" in refusal(f"hf:{hf_folder}")
    assert "copy the folder here first" in refusal("hf:s3://bucket/model")


@pytest.mark.parametrize(
    "said",
    [
        {"size": {"height": 20, "width": 30}, "resample": 2},
        {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "resample": 3},
        {"size": {"shortest_edge": 28}, "crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor", "resample": 2},
        {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor", "resample": 2},
        {"size": {"height": 24, "width": 24}, "do_rescale": True, "rescale_factor": 1 / 127.5, "do_normalize": False, "resample": 0},
        {"size": {"height": 24, "width": 24}, "rescale_offset": True, "rescale_factor": 1 / 127.5, "resample": 0,
         "include_top": True, "image_processor_type": "EfficientNetImageProcessor"},
    ],
)  # fmt: skip
def test_preprocessing_equals_the_processor_s(said: dict, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    said = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_normalize": True,
            "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], **said}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor = getattr(transformers, said["image_processor_type"]).from_pretrained(tmp_path)
        theirs = torch.as_tensor(np.asarray(processor(picture(), return_tensors="np")["pixel_values"][0]))
    preprocess = preprocess_from_processor(processor)
    ours = preprocess.tensor(picture())
    assert ours.shape == theirs.shape
    levels = (ours - theirs).abs() * torch.tensor(preprocess.std).view(3, 1, 1) * 255
    assert levels.max() < 2.1, "grey levels: resampling rounds otherwise"
    assert levels.mean() < 0.5


@pytest.mark.check(
    "input", "a processor without a fixed size, with patches or tiles, or with padding on one side", "refused"
)
@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "no fixed size"),
        ({"image_processor_type": "DetrImageProcessor"}, "no fixed size"),
        ({"image_processor_type": "VideoMAEImageProcessor"}, "patches, tiles or frames"),
        ({"image_processor_type": "SamImageProcessor"}, "padding around the centre"),
    ],
)
def test_processors_that_do_something_else_are_refused(hf_folder: Path, said: dict, text: str) -> None:
    (hf_folder / "preprocessor_config.json").write_text(json.dumps(said))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = refusal(f"hf:{hf_folder}")
    assert text in message
    assert "load the model in a Python factory whose `preprocess` says how" in message


@pytest.mark.check("input", "`pretrained_cfg` of a timm wrapper", "known")
def test_a_wrapped_timm_model_has_timm_s_preprocessing(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    said = {"input_size": [3, 40, 40], "crop_pct": 0.8, "crop_mode": "squash", "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.3, 0.4], "num_classes": 3}  # fmt: skip
    config = transformers.TimmWrapperConfig(architecture="resnet10t", pretrained_cfg=said, num_labels=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.TimmWrapperForImageClassification(config).save_pretrained(tmp_path)
        loaded = load(f"hf:{tmp_path}")
    assert loaded.preprocess == Preprocess((40, 40), "squash", (50, 50), "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert loaded.origins["size"] == f"config.json of {tmp_path}"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, spec in (("timm", "timm:resnet18"), ("transformers", "hf:somewhere")):
        monkeypatch.setitem(sys.modules, package, None)
        extra = spec.partition(":")[0]
        text = refusal(spec)
        assert f"{spec} needs" in text
        assert f"pip install 'heatlas[{extra}]'" in text


def test_models_of_several_bands_say_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "banded.py").write_text(
        "from torch import nn\n"
        "def five(): return nn.Sequential(nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "def one(): return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert (
        "takes 5 channels (its first layer says so) and its preprocessing gives 3: set --preprocess.channels 5"
        in refusal("banded:five")
    )
    five = load("banded:five", channels=5, mean=(0.5,) * 5, std=(0.5,) * 5, size=(16, 16))
    assert (five.preprocess.channels, five.num_classes) == (5, 4)
    assert "takes grey images" in refusal("banded:one")
    assert load("banded:one", mean=(0.5,), std=(0.5,), size=(16, 16)).preprocess.channels == 1


@pytest.mark.parametrize("size", [(32, 32), (299, 299), (384, 384), (40, 96), (96, 40)])
def test_input_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    torch.save(small_net().state_dict(), tmp_path / "w.pth")
    path = scripted(tmp_path / "net.pt", small_net())
    loaded = load(str(path), size=size)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    result = SISE(loaded.module, batch_size=8)(image)
    assert result.statuses == ["ok"]
    assert result.maps.shape == (1, *size)
