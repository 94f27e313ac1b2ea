"""The worked examples of docs/extending.md, and the commands of the tutorials on small data."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType

import heatlas
import numpy as np
import pytest
import torch
from heatlas.engine.metrics import METRICS
from heatlas.pipeline.cli.app import COMMANDS, main
from heatlas.pipeline.sources.listing.registry import SOURCES
from PIL import Image

from ..support import tiny_run
from ..support.checkout import ROOT

DOCS = ROOT / "docs"
BACKBONE = '''

def backbone():
    """The same without its last layer: features."""
    return model()[:-1]
'''
TUTORIALS = ("inspection", "imagenet", "self-supervised", "sixteen-bit")
STANDS_FOR = {"torchvision:resnet50@DEFAULT": "nets:model --preprocess.size 24 --preprocess.resize squash"}
"""Weights that would have to be downloaded, and what the test puts in their place."""


def example(name: str) -> ModuleType:
    """The file of docs/examples, imported as a user would."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", DOCS / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch):
    """What the examples register is gone afterwards."""
    saved = [(registry, dict(registry)) for registry in (METRICS, SOURCES, COMMANDS)]
    yield
    for registry, content in saved:
        registry.clear()
        registry.update(content)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder in which the tutorials' commands are typed, with data under their names."""
    monkeypatch.chdir(tmp_path)
    for folder in ("tiles", "imagenet/val", "labelled", "unlabelled"):
        tiny_run.draw_all(tmp_path / folder, 6)
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 65536, (30, 36)).astype(np.uint16)
        file = tmp_path / "scans" / tiny_run.CLASSES[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)
    with tiny_run.importable_factory(tmp_path, tiny_run.FACTORY + BACKBONE):
        (tmp_path / "nets.py").write_text((tmp_path / "tiny_net.py").read_text())
        sys.modules.pop("nets", None)
        yield tmp_path
        sys.modules.pop("nets", None)


def test_the_metric(registries: None):
    example("metric")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    maps = torch.zeros(2, 8, 8)
    maps[0, 2:6, 2:6], maps[1, 0] = 1, 1
    maps[1, 3, 3] = 1
    measured = heatlas.evaluate(model, torch.rand(2, 3, 8, 8), maps, metrics=["middle_share"])
    assert measured.values["middle_share"].tolist() == pytest.approx([1, 1 / 9])


def test_the_source_and_the_command(registries: None, place: Path, capsys: pytest.CaptureFixture[str]):
    example("source")
    example("command")
    lines = [f"{path.relative_to(place)} {path.parent.name}" for path in sorted((place / "tiles").rglob("*.png"))]
    (place / "train.txt").write_text("\n".join(lines) + "\n")
    run = ["explain", "--model", "nets:model", "--data", "caffe:train.txt", "--out", "maps", "--workers", "0",
           "--preprocess.size", "24", "--preprocess.resize", "squash", "--metrics", "gini"]  # fmt: skip
    assert main([*run, "--allow-unlabelled"]) == 0
    rows = heatlas.open("maps").to_pandas(["id", "gini"])
    assert list(rows["id"]) == [line.split()[0] for line in lines]
    capsys.readouterr()
    assert main(["lowest", "maps", "--metric", "gini", "--limit", "2"]) == 0
    told = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert told == list(rows.sort_values("gini")["id"][:2])
    assert main(["lowest", "maps", "--limit", "0"]) == 2
    (place / "train.txt").write_text("tiles/ant/000.png\n")
    assert main(run) == 2
    assert "must be `path label`" in capsys.readouterr().err
    assert main(["lowest", "--help"]) == 0
    assert "heatlas lowest maps/" in capsys.readouterr().out


def test_the_page_shows_these_files():
    page = (DOCS / "extending.md").read_text()
    for name in ("metric", "source", "command"):
        assert f'--8<-- "docs/examples/{name}.py"' in page
    assert '--8<-- "docs/example_method/plain_gradient/saliency.py"' in page


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorials_commands_run(name: str, place: Path, capsys: pytest.CaptureFixture[str]):
    text = (DOCS / "tutorials" / f"{name}.md").read_text()
    commands = [line.strip() for line in text.splitlines() if line.startswith("    heatlas ")]
    assert len(commands) >= 2
    for command in commands:
        typed = command
        for there, here in STANDS_FOR.items():
            command = command.replace(there, here)
        assert main(shlex.split(command)[1:]) == 0, (typed, capsys.readouterr().err)
    told = capsys.readouterr().out
    assert {"inspection": "accuracy", "imagenet": "forwards", "self-supervised": "mean", "sixteen-bit": "ok 4"}[
        name
    ] in told
