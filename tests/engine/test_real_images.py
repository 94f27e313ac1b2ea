"""A trained network on photographs: MobileNetV2 with ImageNet weights on boxed validation images, against the oracle.

At mu = 0.5, which keeps about 75 of the 700 maps that mu = 0 keeps, so that the oracle's float64 forwards take seconds; at mu = 0,
the paper's own, with `make soak`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.session import Explained, ExplainSession
from torch import nn

from ..support import reference
from ..support.oracle_nets import ARCHITECTURES
from ..support.photographs import NEEDS_DATA, network_input, samples, trained, truth_of

LAYERS = ARCHITECTURES["mobilenet_v2"].layers

pytestmark = NEEDS_DATA

MU = 0.5
FOUR, OTHERS = (0, 2, 4, 6), (1, 3, 5, 7)
"""Photographs that are explained together, in one session whose batches they share."""


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained()


@pytest.fixture(
    scope="module",
    params=[
        (MU, FOUR),
        pytest.param((MU, OTHERS), marks=pytest.mark.soak),
        pytest.param((0.0, FOUR), marks=pytest.mark.soak),
        pytest.param((0.0, OTHERS), marks=pytest.mark.soak),
    ],
    ids=lambda value: f"mu={value[0]},{'-'.join(map(str, value[1]))}",
)
def explained(request: pytest.FixtureRequest, model: nn.Module) -> tuple[float, list[Explained]]:
    """mu, and the photographs' explanations."""
    mu, keys = request.param
    session = ExplainSession(SISE(model, mu=mu), ["drop_pct", "increase", "ebpg", "miou", "bbox"])
    rows, left = samples(), []
    for key in keys:
        left += session.push(
            key, network_input(rows[key]["file"]), target=int(rows[key]["label"]), truth=truth_of(rows[key])
        )
    left += session.finish()
    assert [record.key for record in left] == list(keys)
    return mu, left


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("place", range(len(FOUR)))
def test_map_and_metrics_of_a_photograph_equal_the_oracle(
    model: nn.Module, explained: tuple[float, list[Explained]], place: int
):
    mu, record = explained[0], explained[1][place]
    row = samples()[record.key]
    image, truth = network_input(row["file"]), truth_of(row).numpy()
    oracle = reference.sise(model, LAYERS, image, int(row["label"]), mu=mu, chunk=8)
    assert (record.status, list(record.mask_counts)) == (oracle.status, oracle.mask_counts), row["file"]
    assert record.prediction == oracle.prediction
    assert record.confidence == pytest.approx(oracle.score, abs=1e-4)
    assert record.map is not None
    map_ = record.map.double().numpy()
    stable = ~oracle.gated_near(1e-5)
    assert stable.mean() > 0.99
    assert np.abs(map_ - oracle.map)[stable].max() <= 1e-3, row["file"]
    drop, increase = reference.drop_and_increase(model, image, int(row["label"]), map_)
    assert record.metrics["drop_pct"] == pytest.approx(drop, abs=1e-2)
    assert record.metrics["increase"] == increase
    assert record.metrics["ebpg"] == pytest.approx(reference.ebpg(map_, truth), abs=1e-5)
    assert record.metrics["miou"] == pytest.approx(reference.miou(map_, truth), abs=1e-6)
    assert record.metrics["bbox"] == pytest.approx(reference.bbox(map_, truth), abs=1e-6)


def test_the_network_knows_these_photographs(model: nn.Module):
    """Weights, preprocessing and labels belong together: at least 5 of the 8 predictions are right."""
    rows = samples()
    with torch.no_grad():
        predictions = model(torch.stack([network_input(row["file"]) for row in rows])).argmax(dim=1).tolist()
    assert sum(int(row["label"]) == prediction for row, prediction in zip(rows, predictions, strict=True)) >= 5
