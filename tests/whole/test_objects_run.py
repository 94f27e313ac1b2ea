"""`heatlas.explain_dataset` with a model and a data set as objects, in this process and through Ray."""

from __future__ import annotations

import pathlib

import heatlas
import numpy as np
import pytest
import torch
from heatlas.errors import DataError, ModelError, RunMismatchError, SettingsError
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms._presets import ImageClassification

NAMES = ["red", "green", "blue"]
OPTIONS = {"preprocess": {"size": 24, "resize": "squash"}, "metrics": ["drop_pct"], "batch_size": 8, "shard_size": 3}


class Squares(Dataset):
    """Six images with a bright square each, and their labels."""

    classes = NAMES

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        pixels = np.random.default_rng(index).integers(0, 60, (30, 36, 3), dtype=np.uint8)
        pixels[6:18, 4 + index : 16 + index, index % 3] = 220
        return pixels, index % 3


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def explain(out: pathlib.Path, model: nn.Module, data: object = None, **more: object):
    return heatlas.explain_dataset(
        model=model, data=Squares() if data is None else data, out=out, class_names=NAMES, **{**OPTIONS, "workers": 0, **more}
    )  # fmt: skip


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("objects") / "out"
    explain(out, network())
    return out


def test_the_rows_are_those_of_the_objects(calm: pathlib.Path):
    atlas = heatlas.open(calm)
    rows = atlas.table(["id", "label", "status"]).to_pylist()
    assert [row["label"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert {row["status"] for row in rows} == {"ok"}
    assert atlas.class_names == tuple(NAMES)


def test_the_maps_are_those_of_the_engine(calm: pathlib.Path, tmp_path: pathlib.Path):
    """Against `heatlas.SISE` over the network's own inputs."""
    from heatlas.workers.images.preprocess import Preprocess
    from PIL import Image

    model = network().eval()
    preprocess = Preprocess(size=(24, 24), resize="squash")
    images = torch.stack([preprocess.tensor(Image.fromarray(Squares()[index][0])) for index in range(6)])
    expected = heatlas.SISE(model, batch_size=8).explain(images)
    rows = heatlas.open(calm).table(["prediction", "confidence"]).to_pylist()
    assert [row["prediction"] for row in rows] == expected.predictions.tolist()
    assert [row["confidence"] for row in rows] == pytest.approx(expected.confidences.tolist(), abs=1e-5)


def test_the_model_stays_as_it_was(tmp_path: pathlib.Path):
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explain(tmp_path / "out", model, limit=1)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_the_same_again_resumes_and_other_weights_are_refused(calm: pathlib.Path):
    assert explain(calm, network()).shards_done == 0
    with pytest.raises(RunMismatchError, match="model"):
        explain(calm, network(seed=1))


def test_a_loader_stands_for_its_data_set(calm: pathlib.Path, tmp_path: pathlib.Path):
    explain(tmp_path / "out", network(), DataLoader(Squares(), batch_size=4, shuffle=True))
    columns = ["id", "prediction", "confidence"]
    assert heatlas.open(tmp_path / "out").table(columns).equals(heatlas.open(calm).table(columns))


def test_a_preset_of_torchvision_is_preprocessing(tmp_path: pathlib.Path):
    preset = ImageClassification(crop_size=20, resize_size=22, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    heatlas.explain_dataset(
        model=network(), data=Squares(), out=tmp_path / "out", preprocess=preset, workers=0, limit=1, metrics=None
    )
    preprocess = heatlas.open(tmp_path / "out").run["fingerprint"]["preprocess"]
    assert (preprocess["size"], preprocess["resize_to"], preprocess["std"]) == ([20, 20], 22, [0.25] * 3)


def test_through_ray_it_is_the_same(calm: pathlib.Path, tmp_path: pathlib.Path):
    """The data set's class lies in a module that workers cannot import: it travels by value."""
    result = explain(tmp_path / "out", network(), workers=2)
    assert result.statuses == {"ok": 6}
    columns = ["id", "label", "prediction", "status"]
    assert heatlas.open(tmp_path / "out").table(columns).equals(heatlas.open(calm).table(columns))
    assert np.allclose(heatlas.open(tmp_path / "out").maps(), heatlas.open(calm).maps(), atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"model": "torchvision:resnet18", "class_names": NAMES},
            SettingsError,
            "class_names goes with a model object",
        ),
        ({"model": "torchvision:resnet18", "preprocess": len}, SettingsError, "preprocess must be a mapping"),
        ({"data": iter([])}, DataError, "has no length"),
        ({"class_names": ["one"]}, ModelError, "returns 3 classes but names 1"),
        ({"model": nn.Linear(2, 2)}, ModelError, "does not run on an input"),
    ],
)
def test_what_is_no_model_or_data_set_is_refused(tmp_path: pathlib.Path, arguments: dict, error: type, text: str):
    given = {"model": network(), "data": Squares(), "out": tmp_path / "out", "workers": 0, **OPTIONS, **arguments}
    with pytest.raises(error, match=text):
        heatlas.explain_dataset(**given)
    assert not (tmp_path / "out").exists()


def test_items_that_are_no_images_become_error_rows(tmp_path: pathlib.Path):
    explain(tmp_path / "out", network(), [1, 2, 3], max_error_rate=1.0)
    rows = heatlas.open(tmp_path / "out").table(["status", "error"]).to_pylist()
    assert "ok" not in {row["status"] for row in rows}
    assert all("which is not an image" in row["error"] for row in rows)
