"""Every family of models through the whole command, on files that the test makes; programs explain as their module does."""

from __future__ import annotations

import json
import pathlib
import warnings

import heatlas
import numpy as np
import pytest
import torch
from heatlas.pipeline.cli.app import main
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from ..support.programs import scripted_program
from ..support.tiny_run import CLASSES, FACTORY, draw_all, importable_factory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    with importable_factory(tmp_path_factory.mktemp("models"), FACTORY) as folder:
        draw_all(folder / "images", 3)
        yield folder


def run(folder: pathlib.Path, out: pathlib.Path, model: str, *more: str):
    argv = ["explain", "--model", model, "--data", str(folder / "images"), "--out", str(out), "--workers", "0"]
    assert main([*argv, "--batch-size", "8", "--store.map-size", "input", "--metrics", "drop_pct", *more]) == 0
    rows = heatlas.open(out).to_pandas(["id", "label", "prediction", "status", "confidence"])
    assert list(rows["status"]) == ["ok"] * 3
    return rows, heatlas.open(out).maps()


def tiny_net() -> nn.Module:
    from tiny_net import model  # type: ignore[import-not-found]

    return model().eval()


@pytest.mark.parametrize("size", [("32",), ("24", "40")])
def test_programs_give_the_maps_of_their_module(folder: pathlib.Path, tmp_path: pathlib.Path, size: tuple[str, ...]):
    more = ["--preprocess.size", *size, "--preprocess.resize", "squash"]
    shape = (int(size[0]), int(size[-1]))
    rows, maps = run(folder, tmp_path / "factory", "tiny_net:model", *more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted_program(tiny_net()).save(str(tmp_path / "net.pt"))
    batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(
        torch.export.export(tiny_net(), (torch.zeros(2, 3, *shape),), dynamic_shapes=batch), tmp_path / "net.pt2"
    )
    for name in ("net.pt", "net.pt2"):
        sidecar = {"preprocess": {"size": shape, "resize": "squash"}, "class_names": CLASSES}
        (tmp_path / f"{name}.json").write_text(json.dumps(sidecar))
        others, same = run(folder, tmp_path / f"out-{name}", str(tmp_path / name))
        assert np.array_equal(maps, same)
        assert list(others["confidence"]) == list(rows["confidence"])
        assert heatlas.open(tmp_path / f"out-{name}").class_names == CLASSES


def test_a_program_that_shows_no_layers_is_explained_by_a_method_that_needs_none(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "looping_net.py").write_text(
        "import torch\nfrom torch import nn\n\n\n"
        "class Looping(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)\n\n"
        "    def forward(self, images):\n"
        "        found = torch.relu(self.conv(images))\n"
        "        while bool(found.mean() > 1.0):\n"
        "            found = found / 2\n"
        "        return self.head(found.mean(dim=(2, 3)))\n"
    )
    from looping_net import Looping  # type: ignore[import-not-found]

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted_program(Looping().eval()).save(str(tmp_path / "net.pt"))
    size = ["--preprocess.size", "16", "--preprocess.resize", "squash"]
    argv = [
        "explain",
        "--model",
        str(tmp_path / "net.pt"),
        "--data",
        str(folder / "images"),
        "--out",
        str(tmp_path / "no"),
        *size,
    ]
    assert main([*argv, "--workers", "0"]) == 2
    told = capsys.readouterr().err
    assert "a TorchScript model shows no layers" in told
    named = told.split("methods that fit it: ")[1].split(" (")[0].split(", ")
    assert {"fovex", "integrated_gradients", "occlusion", "rise"} <= set(named)
    assert not {"grad_cam", "agf", "layer_cam"} & set(named)
    run(folder, tmp_path / "rise", str(tmp_path / "net.pt"), *size, "--method", "rise", "--rise.masks", "40")


def test_timm(folder: pathlib.Path, tmp_path: pathlib.Path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    _, maps = run(
        folder,
        tmp_path / "out",
        f"timm:resnet10t@{tmp_path}/w.safetensors",
        "--preprocess.size",
        "32",
        "--sise.mu",
        "0.9",
    )
    assert maps.shape == (3, 32, 32)
    provenance = heatlas.open(tmp_path / "out").metadata["provenance"]
    assert provenance["preprocess"]["interpolation"] == "bicubic"


def test_hugging_face(folder: pathlib.Path, tmp_path: pathlib.Path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(CLASSES))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    said = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(said))
    rows, maps = run(folder, tmp_path / "out", f"hf:{tmp_path}/net")
    assert maps.shape == (3, 32, 32)
    assert list(rows["label"]) == [0, 1, 2], "labels are the model's class names"


def test_torchvision_segmentation(folder: pathlib.Path, tmp_path: pathlib.Path):
    torch.manual_seed(0)
    net = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = f"torchvision:lraspp_mobilenet_v3_large@{tmp_path}/w.safetensors"
    rows, maps = run(folder, tmp_path / "out", model, "--preprocess.size", "48", "64", "--sise.mu", "0.8")
    assert maps.shape == (3, 48, 64)
    assert rows["confidence"].between(0, 1).all()
