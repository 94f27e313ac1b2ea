"""Edge models: which explanation counts as drifted, and what is counted of models that break, look elsewhere or give every pixel its class."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from heatlas.engine.agreement import MapAgreement
from heatlas.engine.scoring.confidence import SEGMENTATION, SOFTMAX
from heatlas.pipeline.edge.drift import DriftRow, measure_drift, noise_floor
from heatlas.pipeline.edge.summary import accuracy_facts, agreement_facts
from heatlas.pipeline.edge.written_files import write_queue
from heatlas.workers.images.decode import Prepared
from heatlas.workers.samples import Sample
from scipy import stats


def drift_row(
    identity: str = "a", *, iou: float = 1.0, noise: float = 1.0, edge_prediction: int = 0, **more
) -> DriftRow:
    agreement, other = MapAgreement(0.5, iou, 0.1), MapAgreement(0.5, noise, 0.1)
    given = {"label": 0, "prediction": 0, "confidence": 0.9, "edge_confidence": 0.8, **more}
    return DriftRow(identity, edge_prediction=edge_prediction, agreement=agreement, noise=other, **given)


def test_drift_is_less_agreement_than_other_masks_leave_and_the_same_prediction() -> None:
    rows = [drift_row(str(place), noise=place / 100) for place in range(101)]
    assert noise_floor(rows) == pytest.approx(0.05)
    assert drift_row(iou=0.04).is_drift(0.05)
    assert not drift_row(iou=0.05).is_drift(0.05)
    assert not drift_row(iou=0.04, edge_prediction=1).is_drift(0.05), (
        "another prediction is no drift of the explanation"
    )
    assert drift_row(iou=math.nan).is_drift(0.05), "a map that says nothing where the base model's says something"
    assert not drift_row(iou=math.nan, noise=math.nan).is_drift(0.05)
    assert not drift_row(iou=math.nan, edge_prediction=1).is_drift(0.05)
    assert drift_row(edge_finite=False, edge_prediction=1).is_drift(0.05)
    assert math.isnan(noise_floor([drift_row(noise=math.nan)]))
    assert not drift_row(iou=0.0, noise=math.nan).is_drift(math.nan)


def test_an_edge_model_that_breaks_is_no_model_that_agrees(tmp_path: Path) -> None:
    def base(images: torch.Tensor) -> torch.Tensor:
        seen = images[:, :, :5, :5].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(seen), 6 * seen - 2], dim=1)

    images = [(Sample(str(place), "x.png", 1), Prepared(torch.ones(3, 16, 16), None, 16, 16)) for place in range(3)]
    options = {"confidence": SOFTMAX, "masks": 60, "batch_size": 64}
    for edge, is_finite in (
        (lambda images: base(images) * math.nan, False),
        (lambda images: base(images) * 0 + torch.tensor([0.0, 1.0]), True),
    ):
        rows = list(measure_drift(images, base, edge, **options))
        floor = noise_floor(rows)
        assert [(row.edge_finite, row.is_lost, row.is_drift(floor)) for row in rows] == [(is_finite, True, True)] * 3
        facts = {**agreement_facts(rows, floor, ()), **accuracy_facts(rows)}
        assert facts["drift_share"] == 1
        assert json.loads(json.dumps(facts, allow_nan=False))["edge_not_finite"] == (0 if is_finite else 3)
        assert facts["accuracy"]["edge"]["mean"] == (1 if is_finite else 0)
        queue = pq.read_table(
            write_queue(str(tmp_path), rows, floor, {str(place): (1, "rise") for place in range(3)})
        ).to_pylist()
        assert [(row["id"], row["priority"], row["iou"]) for row in queue] == [
            (str(place), 1.0, None) for place in range(3)
        ]
        assert ("not finite" if not is_finite else "the same value") in queue[0]["reason"]


def test_coarse_logits_are_compared_with_marks_at_the_image_s_size() -> None:
    def painted(images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 2, 4, 4)
        logits[:, 1, :, :2] = 4 * images[:, 0, ::2, :4:2]
        logits[:, 0] += 1
        return logits

    truth = torch.zeros(8, 8, dtype=torch.bool)
    truth[:, :4] = True
    images = [(Sample("a", "x.png", 1), Prepared(torch.ones(3, 8, 8), truth, 8, 8))]
    [row] = measure_drift(images, painted, painted, confidence=SEGMENTATION, masks=30, batch_size=8)
    assert row.mask_iou == (1.0, 1.0)


def test_a_model_does_not_drift_from_itself_and_a_model_that_looks_elsewhere_does() -> None:
    def looks_at(part: slice):
        def network(images: torch.Tensor) -> torch.Tensor:
            seen = images[:, :, part, part].mean(dim=(1, 2, 3))
            return torch.stack([torch.zeros_like(seen), 6 * seen - 2], dim=1)

        return network

    upper, lower = looks_at(slice(0, 5)), looks_at(slice(11, 16))
    truth = torch.zeros(16, 16, dtype=torch.bool)
    truth[:5, :5] = True
    images = [(Sample(str(place), "x.png", 1), Prepared(torch.ones(3, 16, 16), truth, 16, 16)) for place in range(4)]
    options = {"confidence": SOFTMAX, "masks": 200, "batch_size": 64}
    for row in measure_drift(images, upper, upper, **options):
        assert row.agreement.iou == 1
        assert row.noise.iou < 1
        assert row.d_ebpg == 0
    rows = list(measure_drift(images, upper, lower, **options))
    floor = noise_floor(rows)
    assert all(row.same_prediction and row.is_drift(floor) for row in rows)
    assert all(row.d_ebpg < -0.1 for row in rows)
    assert {row.noise.iou for row in rows} != {rows[0].noise.iou}, "each image has masks of its own"


def test_of_dense_models_pixels_and_overlaps_are_compared() -> None:
    def painted(width: int):
        def network(images: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(images), 3, 8, 8)
            logits[:, 2, :, :width] = 4 * images[:, 0, :, :width]
            logits[:, 0] += 1
            return logits

        return network

    truth = torch.zeros(8, 8, dtype=torch.bool)
    truth[:, :4] = True
    images = [(Sample("a", "x.png", 2), Prepared(torch.ones(3, 8, 8), truth, 8, 8))]
    [row] = measure_drift(images, painted(4), painted(2), confidence=SEGMENTATION, masks=30, batch_size=8)
    assert (row.prediction, row.edge_prediction) == (2, 2)
    assert row.mask_iou == (1.0, 0.5)
    assert row.same_pixels == 0.75
    facts = accuracy_facts([row])
    assert facts["task"] == "segmentation"
    assert facts["change"]["mean"] == -0.5


def test_accuracies_have_wilson_s_intervals_and_the_exact_test() -> None:
    right_right, only_base, only_edge = 12, 5, 1
    rows = (
        [drift_row()] * right_right + [drift_row(edge_prediction=1)] * only_base + [drift_row(prediction=1)] * only_edge
    )
    rows += [drift_row(label=None)] * 3
    facts = accuracy_facts(rows)
    assert facts["labelled"] == 18
    assert facts["accuracy"]["base"]["mean"] == pytest.approx(17 / 18)
    expected = stats.binomtest(13, 18).proportion_ci(0.95, method="wilson")
    assert facts["accuracy"]["edge"]["interval"] == pytest.approx([expected.low, expected.high])
    assert facts["mcnemar_p"] == pytest.approx(stats.binomtest(1, 6).pvalue)
    assert facts["change"]["mean"] == pytest.approx(-4 / 18)
    low, high = facts["change"]["interval"]
    assert low < -4 / 18 < high
    assert accuracy_facts([drift_row(label=None)]) == {"task": "classification", "labelled": 0}


def test_classes_are_counted_by_what_the_base_model_predicts() -> None:
    rows = [drift_row(iou=0.1), drift_row(prediction=2, edge_prediction=2), drift_row(prediction=2, edge_prediction=0)]
    facts = agreement_facts(rows, 0.5, ("ant", "bee", "cat"))
    assert [(record["name"], record["images"], record["drifted"]) for record in facts["classes"]] == [("ant", 1, 1), ("cat", 2, 0)]  # fmt: skip
    assert facts["drift_share"] == pytest.approx(1 / 3)
    assert facts["same_prediction"] == 2
