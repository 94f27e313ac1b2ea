"""The best-known libraries beside ours: where they agree they are oracles, where they are wrong a test shows it and says why."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ..support.metric_cases import MeanModel, SumModel, measure, measure_with

pytestmark = pytest.mark.filterwarnings("ignore")
quantus = pytest.importorskip("quantus", reason="pip install quantus")
arcc = pytest.importorskip("pytorch_grad_cam.metrics.arcc", reason="pip install grad-cam")

IMAGES = torch.rand(3, 3, 16, 12, generator=torch.Generator().manual_seed(0))
MAPS = torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(1)).double()
TRUTH = torch.zeros(3, 16, 12, dtype=torch.bool)
TRUTH[:, 3:9, 2:7] = True
QUIET = {"disable_warnings": True, "display_progressbar": False, "normalise": False, "abs": False}


def by_quantus(name: str, maps: torch.Tensor = MAPS, **kwargs) -> list[float]:
    metric = getattr(quantus, name)(**QUIET)
    scores = metric(
        model=SumModel().eval(), x_batch=IMAGES.numpy(), y_batch=np.zeros(3, dtype=int), a_batch=maps[:, None].numpy(),
        **({"s_batch": TRUTH[:, None].numpy()} | kwargs),
    )  # fmt: skip
    return [float(score) for score in scores]


@pytest.mark.parametrize(("theirs", "ours", "tolerance"), [
    ("Complexity", "entropy", 1e-9),
    ("Sparseness", "gini", 1e-4),  # it adds 1e-7 to every pixel
])  # fmt: skip
def test_quantus_agrees_on_complexity(theirs: str, ours: str, tolerance: float):
    assert measure(ours, MAPS) == pytest.approx(by_quantus(theirs), rel=tolerance)


def test_quantus_agrees_on_localisation():
    assert measure("relevance_rank_accuracy", MAPS, truth=TRUTH) == pytest.approx(by_quantus("RelevanceRankAccuracy"))
    assert measure("ebpg", MAPS, truth=TRUTH) == pytest.approx(by_quantus("RelevanceMassAccuracy"))


def test_quantus_counts_a_constant_map_and_an_empty_ground_truth_as_hits():
    """Every pixel of a constant map ties for the maximum, and NaN written into a boolean array reads as True."""
    game = quantus.PointingGame(**QUIET)
    constant = game.evaluate_batch(a_batch=np.ones((1, 1, 16, 12)), s_batch=TRUTH[:1, None].numpy())
    empty = game.evaluate_batch(a_batch=MAPS[:1, None].numpy(), s_batch=np.zeros((1, 1, 16, 12)))
    assert bool(constant[0])
    assert bool(empty[0])

    assert math.isnan(measure("pointing_hit", torch.ones(1, 16, 12), truth=TRUTH[:1])[0])
    assert math.isnan(measure("pointing_hit", MAPS[:1], truth=torch.zeros(1, 16, 12, dtype=torch.bool))[0])


def test_quantus_road_keeps_the_first_batch_only():
    """Its summary reads `evaluation_scores[0]`: what later batches scored is thrown away."""
    road = quantus.ROAD(percentages=[50], **QUIET)
    road.evaluation_scores = [np.ones((2, 1)), np.zeros((2, 1))]
    road.custom_postprocess()
    assert road.evaluation_scores == {50: 1.0}, "the mean over both batches is 0.5"

    images, maps = IMAGES, MAPS.float()
    together = measure_with(SumModel(0.01), "road", images, maps, batch_size=8)
    assert together == pytest.approx(measure_with(SumModel(0.01), "road", images, maps, batch_size=3), abs=1e-6)


def test_quantus_area_grows_with_the_number_of_steps(monkeypatch: pytest.MonkeyPatch):
    """It takes trapezoids of width 1, so a model that never changes its mind scores 10 with 20 steps and 100 with 200."""
    from quantus.helpers.utils import calculate_auc

    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # quantus 0.6 calls what NumPy 2.4 removed
    assert [calculate_auc(np.full(steps + 1, 0.5)) for steps in (20, 200)] == [10, 100]

    for size in ((4, 5), (20, 10)):
        images, maps = torch.rand(1, 3, *size), torch.rand(1, *size)
        assert measure_with(SumModel(0.0), "deletion_auc", images, maps) == pytest.approx([0.5])


def test_grad_cam_agrees_on_the_parts_of_adcc():
    other = torch.rand(3, 16, 12, dtype=torch.float64)

    assert measure("complexity_l1", MAPS) == pytest.approx(arcc.Complexity()(MAPS.numpy()).tolist())
    theirs = (arcc.batch_pearson_coherency(MAPS.numpy(), other.numpy()) + 1) / 2
    assert measure("coherency", MAPS, explained=other[:, None]) == pytest.approx(theirs.tolist(), abs=1e-6)


def test_grad_cam_s_drop_is_not_relative():
    """Its drop in confidence is p - p', ours and the papers' (p - p') / p: a tenth of p lost is 0.01 there where p is 0.1."""
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    images, maps = torch.full((1, 1, 4, 5), 0.1), torch.ones(1, 4, 5)
    maps[0, :2] = 0.8  # x * S loses a tenth of the mean
    theirs = DropInConfidence()(images, maps.numpy(), [ClassifierOutputSoftmaxTarget(0)], MeanModel())
    # with coherency 1 and complexity 0.9, ADCC tells the drop: 3 / (1 + 10 + 1 / (1 - drop))
    adcc = measure_with(MeanModel(), "adcc", images, maps, explained=maps[:, None])[0]

    assert theirs == pytest.approx([0.01], abs=1e-5)
    assert 1 - 1 / (3 / adcc - 11) == pytest.approx(0.1, abs=1e-3)
