"""Models that a user's function makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from heatlas.errors import SettingsError
from heatlas.workers.images.preprocess import IMAGENET_MEAN, Preprocess
from safetensors.torch import save_file
from torchvision.models import get_model

from ..support.load_models import load, refusal


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_models.py").write_text(FACTORIES)
    (tmp_path / "my_broken.py").write_text("1 / 0")
    (tmp_path / "my_needs.py").write_text("import no_such_package_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    return "my_models"


FACTORIES = """
import torch
from torch import nn
from torchvision.transforms._presets import ImageClassification

class Net(nn.Module):
    def __init__(self, classes=4, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 3)
        self.drop = nn.Dropout()
    def forward(self, x):
        return self.drop(self.conv(x)).mean((2, 3))

class Dense(Net):
    def forward(self, x):
        return self.conv(x)

class Pair(Net):
    def forward(self, x):
        return {"logits": super().forward(x)}

def plain():
    return Net()

def dressed():
    net = Net()
    net.class_names = ["a", "b", "c", "d"]
    net.preprocess = {"size": 32, "resize": "squash"}
    return net

def preset():
    net = Net()
    net.preprocess = ImageClassification(crop_size=48, resize_size=50)
    return net

def grey():
    net = Net(channels=1)
    net.preprocess = {"size": 20, "mean": [0.5], "std": [0.5]}
    return net

def wrong_names():
    net = Net()
    net.class_names = ["a", "b"]
    return net

def wrong_preprocess():
    net = Net()
    net.preprocess = {"size": 32, "resize": "squach"}
    return net

def broken_weights():
    net = Net()
    net.conv.bias.data[0] = float("nan")
    return net

def dense(): return Dense()
def pair(): return Pair()
def single(): return Net(classes=1)
def needs_more_channels(): return Net(channels=5)
def nothing(): return "no module"
def fails(): raise FileNotFoundError("weights.pt")
value = 3
"""


def test_factory(factories: str) -> None:
    loaded = load(f"{factories}:plain")
    assert loaded.preprocess == Preprocess(size=(224, 224), mean=IMAGENET_MEAN)
    assert loaded.num_classes == 4
    assert loaded.class_names is None
    assert not loaded.module.drop.training
    dressed = load(f"{factories}:dressed")
    assert dressed.class_names == ("a", "b", "c", "d")
    assert dressed.preprocess == Preprocess(size=(32, 32), resize="squash")
    assert load(f"{factories}:preset").preprocess == Preprocess(size=(48, 48), resize_to=50)
    assert load(f"{factories}:grey").preprocess.channels == 1
    assert load(f"{factories}:dressed", size=(40, 40)).preprocess == Preprocess(size=(40, 40), resize="squash")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("no_such_module_x:make", "there is no Python module 'no_such_module_x'; install it, or run where it lies"),
        ("my_models:plane", "module my_models has no 'plane'; did you mean 'plain'?"),
        ("my_models:value", "my_models:value is a int, not a function to call"),
        ("my_models:nothing", "my_models:nothing() must return a torch.nn.Module, it returned a str"),
        ("my_models:fails", "my_models:fails() failed: FileNotFoundError: weights.pt"),
        ("my_broken:make", "importing my_broken failed: ZeroDivisionError"),
        (
            "my_needs:make",
            "importing my_needs failed: No module named 'no_such_package_anywhere'; install what it needs",
        ),
        ("my_models:pair", "returns a dict, not a tensor of logits"),
        ("my_models:broken_weights", "logits that are not finite"),
        ("my_models:wrong_names", "returns 4 classes but names 2"),
        ("my_models:wrong_preprocess", "did you mean 'squash'?"),
        (
            "my_models:needs_more_channels",
            "takes 5 channels (its first layer says so) and its preprocessing gives 3: set --preprocess.channels 5",
        ),
    ],
)
def test_factory_refusals(factories: str, spec: str, text: str) -> None:
    assert text in refusal(spec)


def test_dense_models_have_classes_too(factories: str, tmp_path: Path) -> None:
    dense = load("my_models:dense")
    assert (dense.dense, dense.num_classes) == (True, 4)
    assert not load("my_models:plain").dense
    assert load("my_models:single").num_classes == 2, "one logit is that of class 1 against class 0"
    torch.manual_seed(0)
    net = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=5)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    loaded = load(f"torchvision:lraspp_mobilenet_v3_large@{tmp_path}/w.safetensors", size=(64, 96))
    assert (loaded.dense, loaded.num_classes, loaded.class_names) == (True, 5, None)
    assert "LRASPP" in loaded.origins["mean"]
    assert loaded.preprocess.resize_to is not None


def test_overrides_out_of_range(factories: str) -> None:
    with pytest.raises(SettingsError, match="did you mean 'bicubic'"):
        load(f"{factories}:plain", interpolation="cubic")
