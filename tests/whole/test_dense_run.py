"""A segmentation model from the command to the store: the same pipeline, another score."""

from __future__ import annotations

import json
import pathlib

import heatlas
import numpy as np
import pytest
from heatlas.pipeline.cli.app import main
from PIL import Image

from ..support.tiny_run import importable_factory

FACTORY = '''
import torch
from torch import nn


class Segmenter(nn.Module):
    """Background, red, green and blue, by the colour of each pixel; returns torchvision's dict."""

    class_names = ("background", "red", "green", "blue")
    preprocess = {"size": [16, 20], "resize": "squash", "mean": [0, 0, 0], "std": [1, 1, 1]}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.low, self.high, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            for conv in (self.low, self.high):
                conv.weight.mul_(0.05)
                conv.weight[[0, 1, 2], [0, 1, 2], 1, 1] = 1.0
                conv.bias.zero_()
            self.head.weight.zero_()
            self.head.weight[[1, 2, 3], [0, 1, 2]] = 6.0
            self.head.bias.copy_(torch.tensor([1.5, 0.0, 0.0, 0.0]))

    def forward(self, images):
        maps = nn.functional.max_pool2d(torch.relu(self.low(images)), 2)
        logits = self.head(torch.relu(self.high(maps)))
        return {"out": nn.functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)}


def segmenter(): return Segmenter()
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    with importable_factory(tmp_path_factory.mktemp("dense"), FACTORY) as folder:
        (folder / "images").mkdir()
        for number in range(3):
            pixels = np.zeros((32, 40, 3), np.uint8)
            pixels[4:20, 4:20, number % 2] = 255  # red, green, red
            pixels[20:28, 24:36, 2] = 255
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        yield folder


def command(folder: pathlib.Path, out: pathlib.Path, *more: str) -> list[str]:
    what = ["explain", "--model", "tiny_net:segmenter", "--data", str(folder / "images"), "--out", str(out)]
    return [*what, "--batch-size", "8", "--workers", "0", *more]


def test_every_class_that_is_there_is_explained(folder: pathlib.Path, tmp_path: pathlib.Path):
    out = tmp_path / "out"
    assert main(command(folder, out, "--target", "top:2", "--store.map-size", "input")) == 0
    rows = heatlas.open(out).to_pandas(["id", "prediction", "target", "confidence", "status", "drop_pct"])
    assert list(rows["status"]) == ["ok"] * 6
    assert list(rows["target"]) == [1, 3, 2, 3, 1, 3], "the larger first, background never before what is there"
    assert list(rows["prediction"]) == [1, 1, 2, 2, 1, 1]
    assert rows["confidence"].between(0.3, 1).all()
    assert rows["drop_pct"].notna().all()
    atlas = heatlas.open(out)
    big, small = atlas.maps(["0.png"], target=1)[0], atlas.maps(["0.png"], target=3)[0]
    assert big[2:10, 2:10].mean() > 3 * big[10:14, 12:18].mean()
    assert small[10:14, 12:18].mean() > 3 * small[2:10, 2:10].mean()
    assert json.loads((out / "_run.json").read_text())["fingerprint"]["score"] == "segmentation"
    assert main(["evaluate", str(out), "--metrics", "average_gain_pct", "--workers", "0"]) == 0
    assert main(["verify", str(out)]) == 0
    assert main(["show", str(out)]) == 0


def test_a_class_that_is_nowhere(folder: pathlib.Path, tmp_path: pathlib.Path):
    assert main(command(folder, tmp_path / "out", "--target", "red", "--metrics", "none")) == 0
    rows = heatlas.open(tmp_path / "out").to_pandas(["status", "error", "confidence"])
    assert list(rows["status"]) == ["ok", "no_evidence", "ok"]
    assert rows["error"][1] == "the model finds class 1 nowhere in the image"


def test_plan_knows_dense_models(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from heatlas.pipeline.plan import probe

    monkeypatch.setattr(probe, "TIMED", 0.01)
    capsys.readouterr()
    assert main(["plan", *command(folder, folder / "none")[1:], "--target", "top:3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows_per_image"] == 3
    assert result["findings"] == []


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (
            ["--confidence", "softmax"],
            "gives every pixel its class: leave --confidence out, or say segmentation or dice",
        ),
        (["--target", "above:0.5"], "is for multi-label classifiers; of a dense model explain"),
        (["--method", "bee"], "methods that fit it: "),
    ],
)
def test_what_does_not_go_together_is_refused(
    more: list[str], text: str, folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    assert main(command(folder, tmp_path / "out", *more)) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
