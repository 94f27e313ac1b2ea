"""`heatlas explain --correct-shift`: a network whose shift is known by construction, through the commands."""

from __future__ import annotations

import importlib
import json
import pathlib
import sys

import heatlas
import numpy as np
import pytest
from heatlas.pipeline.cli.app import main
from PIL import Image

MODULE, SIDE = "strided_for_shift", 64
FACTORY = '''
import torch
from torch import nn


def model():
    """Three odd kernels with stride 2: maps lie (2^3 - 1) / 2 = 3.5 pixels right and down."""
    layers = []
    for number in range(3):
        convolution = nn.Conv2d(3 if number == 0 else 4, 4, 3, 2, 1, bias=False)
        nn.init.constant_(convolution.weight, 1 / 9)
        layers += [convolution, nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[-1].weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
        net[-1].bias.zero_()
    return net.eval()
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shift")
    (folder / f"{MODULE}.py").write_text(FACTORY)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(6):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        top, left = random.integers(14, 40, 2)
        pixels[top : top + 9, left : left + 6] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop(MODULE, None)


def command(folder: pathlib.Path, out: str, *more: str, name: str = "explain") -> list[str]:
    words = [name, "--model", f"{MODULE}:model", "--data", str(folder / "images"), "--workers", "0", "--method", "grad_cam",
             "--metrics", "max_sensitivity", "--chance-maps", "0", "--preprocess.size", str(SIDE), "--preprocess.mean", "0", "0", "0",
             "--preprocess.std", "1", "1", "1", "--store.map-size", "input"]  # fmt: skip
    return [*words, *(["--out", str(folder / out)] if name == "explain" else []), *more]


def distance_from_objects(folder: pathlib.Path, out: str) -> np.ndarray:
    """Pixels down and right by which the maps' centres lie off the objects', the median over the images."""
    atlas = heatlas.open(folder / out)
    off = []
    for identity, map_ in zip(atlas.table(["id"])["id"].to_pylist(), atlas.maps(), strict=True):
        bright = np.asarray(Image.open(folder / "images" / f"{pathlib.Path(identity).stem}.png").convert("L")) > 0
        strong = map_ >= 0.5 * map_.max()
        off.append(np.argwhere(strong).mean(axis=0) - np.argwhere(bright).mean(axis=0))
    return np.median(off, axis=0)


def test_the_measured_shift_is_corrected_stored_and_kept_on_resuming(folder, capsys):
    assert main(command(folder, "plain")) == 0
    assert distance_from_objects(folder, "plain") == pytest.approx((3.5, 3.5), abs=0.8)
    assert main(command(folder, "moved", "--correct-shift", "measured")) == 0
    assert "px right" in capsys.readouterr().err
    assert distance_from_objects(folder, "moved") == pytest.approx((0, 0), abs=0.8)
    run = json.loads((folder / "moved" / "_run.json").read_text())
    pixels = run["fingerprint"]["correct_shift"]
    assert run["settings"]["correct_shift"] == "measured"
    assert pixels == pytest.approx([3.5, 3.5], abs=0.35)
    atlas = heatlas.open(folder / "moved")
    assert atlas.metadata["provenance"]["settings"]["correct_shift"] == pixels
    assert (
        atlas.table(["max_sensitivity"])["max_sensitivity"].to_numpy().max() < 0.5
    )  # changed images' maps are moved too
    assert main(command(folder, "moved", "--correct-shift", "measured")) == 0
    assert "px right" not in capsys.readouterr().err  # a stored run goes on with what it measured
    assert main(command(folder, "moved")) == 2
    assert "correct_shift" in capsys.readouterr().err


def test_written_pixels_are_taken_and_nonsense_is_refused(folder, capsys):
    assert main(command(folder, "written", "--correct-shift", "3.5,3.5")) == 0
    assert distance_from_objects(folder, "written") == pytest.approx((0, 0), abs=0.8)
    assert main(command(folder, "far", "--correct-shift", "0,40")) == 2
    assert "half of the network's input of 64 x 64" in capsys.readouterr().err
    assert main(command(folder, "word", "--correct-shift", "left")) == 2
    assert "'measured' or DOWN,RIGHT" in capsys.readouterr().err.replace("measured or", "'measured' or")


def test_plan_and_report_say_the_shift_in_pixels(folder, capsys):
    assert main(command(folder, "", name="plan")) == 0
    printed = capsys.readouterr().out
    assert "px right, 3." in printed
    assert "--correct-shift measured moves maps back" in printed
    assert main(command(folder, "reported")) == 0
    heatlas.open(folder / "reported").report(folder / "report.html", blocks=True)
    page = (folder / "report.html").read_text()
    shift = page.split("<dt>Map shift</dt><dd>")[1].split("</dd>")[0]
    assert "px right, 3." in shift
    assert "mirror images of 6 images" in shift
    heatlas.open(folder / "reported").report(folder / "unloaded.html")
    assert "not measured: the run" in (folder / "unloaded.html").read_text().split("<dt>Map shift</dt><dd>")[1][:80]
