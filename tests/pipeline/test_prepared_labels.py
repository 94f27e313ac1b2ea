"""Which label is which class, through a whole preparation: what the settings say, what the model predicts, what is asked and said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from heatlas.errors import DataError
from heatlas.pipeline.explain.feature_bank import make_bank
from heatlas.pipeline.explain.prepare import PreparedRun, prepare_run
from heatlas.pipeline.settings.load import load_settings

from ..support.tiny_run import CLASSES, draw, importable_factory

IMAGES = 24
FACTORY = """
import torch
from torch import nn


def trained(turn: int = 0) -> nn.Module:
    '''Finds the brightest colour of an image, which is its class; `turn` is by how many places its classes stand elsewhere.'''
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    with torch.no_grad():
        for layer in (net[0], net[4]):
            layer.weight.copy_(torch.eye(3).view(layer.weight.shape))
            layer.bias.zero_()
        net[4].weight.copy_(40 * net[4].weight.roll(turn, 0))
    return net


def turned() -> nn.Module:
    return trained(1)


def features() -> nn.Module:
    return trained()[:4]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images in class folders (`flat`), in class folders of two folds (`folds`), and a table of indices (`indices.csv`)."""
    folder = tmp_path_factory.mktemp("prepared")
    rows = ["uri,label"]
    for number in range(IMAGES):
        name = f"{CLASSES[number % 3]}/{number}.png"
        draw(folder / "flat" / name, number)
        draw(folder / "folds" / f"fold{number % 2}" / name, number)
        rows.append(f"flat/{name},{number % 3}")
    (folder / "indices.csv").write_text("\n".join(rows))
    (folder / "order.txt").write_text("cat\nant\nbee\n")
    with importable_factory(folder, FACTORY):
        yield folder


def prepared(place: Path, data: str, model: str = "trained", **settings: Any) -> PreparedRun:
    return prepare_run(
        load_settings(
            {
                "model": f"tiny_net:{model}", "data": place / data, "out": place / "out", "workers": 0, "batch_size": 8, "shard_size": 8,
                "method": "occlusion", "preprocess": {"size": 24, "resize": "squash"}, **settings,
            }
        )
    )  # fmt: skip


def classes(run: PreparedRun) -> list[tuple[str, int | None]]:
    """Class by the name of the folder that an image lies in."""
    rows = run.labels.listing.select(["id", "label"]).to_pylist()
    return sorted({(row["id"].split("/")[-2], row["label"]) for row in rows})


@pytest.mark.check("labels", "folders in folders of which `--limit`, `--sample` or `--where` take one", "asked")
@pytest.mark.parametrize("part", [{}, {"limit": 2}, {"sample": 1}, {"where": "id = 'fold0/ant/0.png'"}])
def test_a_part_of_folders_in_folders_is_asked_about_like_the_whole(place: Path, part: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"--labels.folder last \('ant', 'bee', 'cat' are\)"):
        prepared(place, "folds", **part)
    run = prepared(place, "folds", labels={"folder": "last"}, **part)
    assert set(classes(run)) <= {("ant", 0), ("bee", 1), ("cat", 2)}
    if not part:
        assert len(classes(run)) == 3


def test_a_bank_asks_about_folders_in_folders(place: Path) -> None:
    settings = {"model": "tiny_net:features", "data": place / "folds", "preprocess": {"size": 24, "resize": "squash"}}
    for part in ({}, {"limit": 2}):
        with pytest.raises(DataError, match=r"--labels.folder last"):
            make_bank(out=place / "bank.safetensors", **settings, **part)
    result = make_bank(out=place / "bank.safetensors", labels={"folder": "last"}, **settings)
    assert result.class_names == CLASSES


def test_an_order_is_held_against_the_predictions_of_the_run(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "heatlas"):
        run = prepared(place, "flat")
    assert classes(run) == [("ant", 0), ("bee", 1), ("cat", 2)]
    said = f"which explains the predictions of {IMAGES} of {IMAGES} labelled images"
    assert sum(said in line for line in caplog.messages) == 1
    with pytest.raises(DataError, match=f"another order of the classes explains {IMAGES}"):
        prepared(place, "flat", "turned")
    given = prepared(place, "flat", "turned", labels={"order": f"file:{place / 'order.txt'}"})
    assert classes(given) == [("ant", 1), ("bee", 2), ("cat", 0)]
    insisted = prepared(place, "flat", "turned", labels={"order": "imagefolder"})
    assert classes(insisted) == [("ant", 0), ("bee", 1), ("cat", 2)]


def test_how_indices_are_read_is_said_in_one_line(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "heatlas"):
        run = prepared(place, "indices.csv")
    assert classes(run) == [("ant", 0), ("bee", 1), ("cat", 2)]
    said = [line for line in caplog.messages if "labels are read" in line]
    assert said == ["note: labels are read by class indices from 0"]
