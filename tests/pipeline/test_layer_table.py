"""`heatlas layers`: what the user sees."""

from __future__ import annotations

import json
import pathlib

import pytest
from heatlas.pipeline.cli.app import main
from safetensors.torch import save_file
from torchvision.models import get_model


def test_table_of_resnet18(capsys: pytest.CaptureFixture[str]):
    assert main(["layers", "--untrained", "torchvision:resnet18"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "torchvision:resnet18: 5 block-end layers for 224 x 224 input, found from the traced graph"
    assert lines[2].split() == ["layer", "channels", "size"]
    assert lines[3].split() == ["relu", "64", "112", "x", "112"]
    assert lines[7].split() == ["layer4", "512", "7", "x", "7"]
    assert lines[9].startswith("1024 feature maps in all")


def test_json_and_size(capsys: pytest.CaptureFixture[str]):
    assert main(["layers", "--untrained", "torchvision:resnet18", "--size", "64", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["input"], result["how"]) == ([64, 64], "traced")
    assert result["layers"][-1] == {"name": "layer4", "channels": 512, "size": [2, 2]}


def test_a_factory_of_ones_own(capsys: pytest.CaptureFixture[str]):
    assert main(["layers", "heatlas.pipeline.demo.network:demo_model"]) == 0
    assert "for 96 x 96 input" in capsys.readouterr().out


def test_a_model_without_a_classifier_has_layers_too(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    weights = {name: layer for name, layer in get_model("resnet18").state_dict().items() if not name.startswith("fc.")}
    save_file(weights, tmp_path / "w.safetensors")
    assert main(["layers", f"torchvision:resnet18@{tmp_path}/w.safetensors", "--size", "64", "--json"]) == 0
    bare = json.loads(capsys.readouterr().out)
    assert main(["layers", "--untrained", "torchvision:resnet18", "--size", "64", "--json"]) == 0
    headed = json.loads(capsys.readouterr().out)
    assert bare["layers"] == [{**layer, "name": f"model.{layer['name']}"} for layer in headed["layers"]]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (
            ["--untrained", "torchvision:resnet81"],
            "unknown torchvision classification model 'resnet81'; did you mean 'resnet18'?",
        ),
        (["--untrained", "torchvision:vit_b_16"], "SISE needs a CNN"),
        (["resnet18"], "did you mean 'torchvision:resnet18'?"),
        (["--untrained", "torchvision:resnet18", "--size", "0"], "--size must be between 1 and 4096 pixels, got 0"),
        (
            ["--untrained", "torchvision:resnet18", "--size", "999999"],
            "--size must be between 1 and 4096 pixels, got 999999",
        ),
        (
            ["--untrained", "torchvision:resnet18", "--size", "many"],
            "--size 'many' is not allowed: it must be a whole number",
        ),
        (
            ["--untrained", "torchvision:"],
            "unknown torchvision classification model ''; see torchvision.models.list_models()",
        ),
        ([":"], "':' is not a model; write torchvision:NAME"),
        (["nosuch_module:f"], "there is no Python module 'nosuch_module'; install it"),
        (["os:getcwd"], "os:getcwd() must return a torch.nn.Module, it returned a str"),
        (
            ["--untrained", "torchvision:squeezenet1_1", "--size", "8"],
            "the model cannot take an image of shape (3, 8, 8)",
        ),
    ],
)
def test_refusals(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]):
    assert main(["layers", *argv]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("heatlas: error: ")
    assert text in err
    assert out == ""
