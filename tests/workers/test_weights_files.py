"""Which weights are loaded: by content, averaged ones where there are both, never random ones, never an object that runs code."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from heatlas.errors import ModelError
from heatlas.workers.models.load import ModelSpec, load_model, refuse_random_weights
from heatlas.workers.models.weights import read_weights
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models import densenet121, squeezenet1_1

from ..support.narrow_vit import narrow_vit, stand_in


def small() -> nn.Module:
    torch.manual_seed(3)
    return squeezenet1_1(num_classes=4)


RAW = small().state_dict()
AVERAGED = {name: tensor + 1 for name, tensor in RAW.items()}


def first(weights: dict[str, Tensor]) -> float:
    return float(weights["features.0.weight"].flatten()[0])


@pytest.mark.check("weights", "`.pth.tar`, `.ckpt`, `.bin`: content decides, not the suffix", "known")
@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.ckpt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("as_safetensors", [False, True])
def test_content_decides_not_the_name(tmp_path: Path, name: str, as_safetensors: bool) -> None:
    if as_safetensors:
        (tmp_path / name).write_bytes(save({key: tensor.contiguous() for key, tensor in RAW.items()}))
    else:
        torch.save(RAW, tmp_path / name)
    loaded = load_model(ModelSpec(spec=f"torchvision:squeezenet1_1@{tmp_path / name}"))
    assert loaded.num_classes == 4
    assert first(loaded.module.state_dict()) == first(RAW)


@pytest.mark.check("weights", "averaged weights (EMA) beside raw ones", "said")
@pytest.mark.parametrize(
    ("raw", "averaged"), [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("model", "state_dict_ema")]
)
def test_averaged_weights_go_before_raw_ones_and_are_said(tmp_path: Path, raw: str, averaged: str) -> None:
    torch.save({raw: RAW, averaged: AVERAGED, "epoch": 3}, tmp_path / "w.pth")
    file = read_weights(str(tmp_path / "w.pth"))
    assert first(file.tensors) == first(AVERAGED)
    assert f"{averaged!r} are taken and not {raw!r}" in file.notes[0]


@pytest.mark.check(
    "weights", "averaged weights in a wrapper of their own, several kinds of weights in one file", "said"
)
@pytest.mark.parametrize(
    ("content", "expected", "note"),
    [
        ({"state_dict": RAW, "ema": {"state_dict": AVERAGED}}, AVERAGED, "'ema' are taken and not 'state_dict'"),
        ({"model": RAW, "ema": {"module": AVERAGED, "decay": 0.99}}, AVERAGED, "'ema' are taken and not 'model'"),
        ({"state_dict": {"model": RAW}}, RAW, ""),
        ({"model": RAW, "teacher": AVERAGED}, RAW, "the weights 'model' are taken and not 'teacher'"),
        ({"state_dict": RAW, "best": AVERAGED}, RAW, "the weights 'state_dict' are taken and not 'best'"),
        ({"state_dict": RAW, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}}, RAW, ""),
    ],
    ids=["ema of state_dict", "ema of module", "nested", "teacher", "best", "optimizer"],
)
def test_wrappers_in_wrappers_and_several_kinds(tmp_path: Path, content: dict, expected: dict, note: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    file = read_weights(str(tmp_path / "w.pth"))
    assert first(file.tensors) == first(expected)
    assert note in " ".join(file.notes)
    assert bool(file.notes) == bool(note)


@pytest.mark.check("weights", "quantised whole numbers in the place of weights", "refused")
def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    weights = {name: tensor.to(torch.int8) if "weight" in name else tensor for name, tensor in RAW.items()}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(
        ModelError, match=r"of another type \(features.0.weight torch.int8 where the model has torch.float32"
    ):
        load_model(ModelSpec(spec=f"torchvision:squeezenet1_1@{tmp_path}/w.pth"))
    half = {name: tensor.half() for name, tensor in RAW.items()}
    torch.save(half, tmp_path / "h.pth")
    loaded = load_model(ModelSpec(spec=f"torchvision:squeezenet1_1@{tmp_path}/h.pth"))
    assert loaded.module.state_dict()["features.0.weight"].dtype == torch.float32


@pytest.mark.check("weights", "the same choice as timm's loader", "known")
def test_timms_loader_takes_the_same_ones(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_resnet.r160_in1k", pretrained=False)
    raw, averaged = model.state_dict(), {name: tensor + 1 for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": raw, "state_dict_ema": averaged}, tmp_path / "w.pth.tar")
    timm.models.load_checkpoint(model, str(tmp_path / "w.pth.tar"))
    ours = load_model(ModelSpec(spec=f"timm:test_resnet@{tmp_path / 'w.pth.tar'}"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, ours.module.state_dict()[name]), name
    assert "state_dict_ema" in ours.notes[0]


@pytest.mark.check("weights", "torch's AveragedModel in a checkpoint", "said")
def test_torchs_averaged_model_as_torchvisions_scripts_save_it(tmp_path: Path) -> None:
    averaged = AveragedModel(small(), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    torch.save({"model": RAW, "model_ema": averaged.state_dict()}, tmp_path / "w.pth")
    assert load_model(ModelSpec(spec=f"torchvision:squeezenet1_1@{tmp_path / 'w.pth'}")).num_classes == 4


@pytest.mark.check("weights", "prefixes `module.`, `model.`, `backbone.`, `_orig_mod.`", "said")
@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "backbone.", "_orig_mod.", "module.model.", "_orig_mod.module.", "net."]
)
def test_prefixes_that_all_names_share(tmp_path: Path, prefix: str) -> None:
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in RAW.items()}}, tmp_path / "w.ckpt")
    loaded = load_model(ModelSpec(spec=f"torchvision:squeezenet1_1@{tmp_path / 'w.ckpt'}"))
    assert first(loaded.module.state_dict()) == first(RAW)
    said = any("prefix" in note for note in loaded.notes)
    assert said == ("model." in prefix or prefix in ("backbone.", "net."))


@pytest.mark.check("weights", "argparse.Namespace, NumPy numbers, paths beside the weights", "known")
def test_harmless_values_beside_the_weights_are_read(tmp_path: Path) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x")), "best": np.float64(0.9), "epoch": np.int64(3), "scores": np.arange(3.0),
    }  # fmt: skip
    torch.save({"state_dict": RAW, **beside}, tmp_path / "w.pth")
    assert first(read_weights(str(tmp_path / "w.pth")).tensors) == first(RAW)


class Trainer:
    """What a training program of one's own might leave in a checkpoint."""


@pytest.mark.check("weights", "other Python objects in a checkpoint", "refused")
def test_other_objects_are_named_and_not_made(tmp_path: Path) -> None:
    torch.save({"state_dict": RAW, "trainer": Trainer()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"Trainer.*Nothing in it was run"):
        read_weights(str(tmp_path / "w.pth"))


@pytest.mark.check("weights", "a whole pickled model", "refused")
def test_a_pickled_model_is_called_that(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"whole pickled model \(it names torch.*model.state_dict\(\)"):
        read_weights(str(tmp_path / "w.pt"))


@pytest.mark.check("weights", "an unknown wrapper around the weights", "refused")
def test_an_unknown_wrapper_is_shown_with_its_keys(tmp_path: Path) -> None:
    torch.save({"generator": RAW, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"its keys are generator \(tensors: features.0.weight"):
        read_weights(str(tmp_path / "w.pth"))


def published_densenet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision.models.DenseNet121_Weights.IMAGENET1K_V1 spells its names: `denselayer1.norm.1.weight`."""
    return {
        name.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): tensor
        for name, tensor in weights.items()
    }


def published_vit(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1 spells its names: `mlp.linear_1.weight`."""
    return {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for name, tensor in weights.items()
    }


@pytest.mark.check("weights", "torchvision's own published names (DenseNet `norm.1`, ViT `linear_1`)", "known")
@pytest.mark.parametrize(
    ("architecture", "build", "spell"),
    [("densenet121", densenet121, published_densenet), ("vit_b_16", narrow_vit(16), published_vit)],
)
def test_names_as_torchvision_publishes_them(
    tmp_path: Path,
    architecture: str,
    build: Callable[..., nn.Module],
    spell: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(monkeypatch, architecture, build)
    weights = build(num_classes=5).state_dict()
    published = spell(weights)
    assert published.keys() != weights.keys()
    torch.save(published, tmp_path / "w.pth")
    loaded = load_model(ModelSpec(spec=f"torchvision:{architecture}@{tmp_path / 'w.pth'}"))
    assert all(torch.equal(tensor, loaded.module.state_dict()[name]) for name, tensor in weights.items())


FACTORIES = """
import torch
from torch import nn

def forgets():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

def seeded():
    torch.manual_seed(0)
    return forgets()
"""


@pytest.mark.check("weights", "a factory that forgets to load its weights", "refused")
def test_a_factory_that_forgets_to_load_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random_nets.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    forgets, seeded = (ModelSpec(spec=f"random_nets:{name}", size=(16, 16)) for name in ("forgets", "seeded"))
    with pytest.raises(ModelError, match="so they are random"):
        refuse_random_weights(forgets, load_model(forgets))
    refuse_random_weights(seeded, load_model(seeded))
    torch.save(load_model(seeded).module.state_dict(), tmp_path / "w.pth")
    named = ModelSpec(spec=f"random_nets:forgets@{tmp_path / 'w.pth'}", size=(16, 16))
    refuse_random_weights(named, load_model(named))
    sys.modules.pop("random_nets", None)


@pytest.mark.check("weights", "a Hugging Face folder without a classifier", "refused")
def test_a_hugging_face_backbone_without_a_classifier_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3, layer_type="basic"
    )
    backbone = transformers.ResNetModel(config)
    backbone.save_pretrained(tmp_path / "net")
    with pytest.raises(ModelError, match=r"lack classifier.*would be random"):
        load_model(ModelSpec(spec=f"hf:{tmp_path / 'net'}", size=(32, 32)))
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "whole")
    assert load_model(ModelSpec(spec=f"hf:{tmp_path / 'whole'}", size=(32, 32))).num_classes == 3
