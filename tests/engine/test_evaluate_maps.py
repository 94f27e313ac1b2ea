"""`heatlas.evaluate`: metrics of maps that somebody brings."""

from __future__ import annotations

import heatlas
import pytest
import torch
from heatlas.engine.metrics import METRICS, spelt_out
from heatlas.engine.session import ExplainSession
from heatlas.errors import SettingsError, TargetError
from torch import nn

CLASSES = 3


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def some_maps(images: torch.Tensor) -> torch.Tensor:
    return torch.rand(len(images), 16, 16, generator=torch.Generator().manual_seed(2))


def test_what_the_model_says_stands_beside_the_values(model: nn.Module, images: torch.Tensor):
    maps = some_maps(images)
    result = heatlas.evaluate(model, images, maps, [0, 1, 2], metrics=["insertion_auc", "deletion_auc"])
    assert set(result.values) == {"insertion_auc", "deletion_auc"}
    assert result.targets.tolist() == [0, 1, 2]
    logits = model(images).softmax(1)
    assert torch.allclose(result.confidences, logits[torch.arange(3), torch.arange(3)], atol=1e-6)
    assert result.predictions.tolist() == logits.argmax(1).tolist()


def test_the_same_numbers_as_in_a_run(model: nn.Module, images: torch.Tensor):
    """Maps of a method, measured by it, and brought as tensors: one value."""
    names = [name for name in spelt_out(["full"]) if not METRICS[name].layers and METRICS[name].needs != "truth"]
    explainer = heatlas.GradCAM(model, layer="3")
    session = ExplainSession(explainer, names, seed=5)
    rows = [row for place, image in enumerate(images) for row in session.push(place, image)] + session.finish()
    maps = explainer.explain(images).maps
    result = heatlas.evaluate(model, images, maps, metrics=names, seed=5, explainer=explainer)
    for place, row in enumerate(rows):
        assert row.status == result.statuses[place]
        if row.status != "ok":
            continue
        for name in names:
            ours, theirs = float(result.values[name][place]), row.metrics[name]
            assert (theirs is None and ours != ours) or ours == pytest.approx(theirs, rel=1e-4, abs=1e-5), name


def test_truth_is_read(model: nn.Module, images: torch.Tensor):
    maps = torch.zeros(3, 16, 16)
    maps[:, :8] = 1.0
    truth = torch.zeros(3, 16, 16, dtype=torch.bool)
    truth[:, :4] = True
    with_truth = heatlas.evaluate(model, images, maps, metrics="ebpg", truth=truth)
    assert with_truth.values["ebpg"].tolist() == pytest.approx([0.5] * 3)
    assert with_truth.means() == {"ebpg": pytest.approx(0.5)}
    assert heatlas.evaluate(model, images, maps, metrics="ebpg").values["ebpg"].isnan().all()
    frame = with_truth.to_pandas()
    assert list(frame["ebpg"]) == pytest.approx([0.5] * 3)
    assert list(frame["status"]) == ["ok"] * 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"metrics": "drop"}, "unknown metric 'drop'"),
        ({"metrics": ["max_sensitivity"]}, "max_sensitivity explains further inputs: give explainer="),
        ({"metrics": ["layer_agreement"]}, "block maps"),
        ({"maps": torch.zeros(3, 8, 8)}, "maps must be (3, 16, 16) like the images, got (3, 8, 8)"),
        ({"maps": torch.full((3, 16, 16), -0.5)}, "maps must lie in [0, 1], got -0.5 to -0.5"),
        ({"maps": torch.full((3, 16, 16), float("nan"))}, "maps must lie in [0, 1]"),
        ({"truth": torch.zeros(3, 4, 4, dtype=torch.bool)}, "truth must be (3, 16, 16)"),
        ({"seeds": [1]}, "seeds must be one for each of the 3 images, got 1"),
        ({"labels": [1, 2]}, "labels must be one for each of the 3 images, got 2"),
        ({"images": torch.zeros(3, 16, 16)}, "images must be (batch, channel, height, width)"),
    ],
)
def test_what_does_not_go_together_is_refused(model: nn.Module, images: torch.Tensor, change: dict, text: str):
    arguments = {"images": images, "maps": some_maps(images), "metrics": ["gini"], **change}
    with pytest.raises(SettingsError) as caught:
        heatlas.evaluate(model, **arguments)
    assert text in str(caught.value)


def test_a_class_that_is_not_is_refused(model: nn.Module, images: torch.Tensor):
    with pytest.raises(TargetError):
        heatlas.evaluate(model, images, some_maps(images), 3, metrics="gini")


def test_a_broken_output_is_told_and_not_measured(model: nn.Module, images: torch.Tensor):
    broken = images.clone()
    broken[1] = float("nan")
    result = heatlas.evaluate(model, broken, some_maps(images), metrics=["gini"])
    assert result.statuses == ["ok", "non_finite", "ok"]
    assert result.values["gini"].isnan().tolist() == [False, True, False]


def test_by_name_and_by_class_it_is_one_method(model: nn.Module, images: torch.Tensor):
    by_name = heatlas.explainer("grad_cam", model, layer="3").explain(images, 1)
    by_class = heatlas.GradCAM(model, layer="3").explain(images, 1)
    assert torch.equal(by_name.maps, by_class.maps)
    with pytest.raises(SettingsError, match="unknown method 'gradcam'; did you mean 'grad_cam'"):
        heatlas.explainer("gradcam", model)
