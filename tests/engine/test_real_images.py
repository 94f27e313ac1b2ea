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
from ..support.photographs import COUNT, NEEDS_DATA, network_input, samples, trained, truth_of

LAYERS = ARCHITECTURES["mobilenet_v2"].layers

pytestmark = NEEDS_DATA

MU = 0.5
OFTEN = (0, 2, 4, 6)
"""Photographs whose oracle is computed in every run of the suite; those of all `COUNT` with `make soak`."""


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained()


@pytest.fixture(scope="module", params=[MU, pytest.param(0.0, marks=pytest.mark.soak)])
def explained(request: pytest.FixtureRequest, model: nn.Module) -> list[Explained]:
    """All photographs in one session, whose batches they share."""
    session = ExplainSession(SISE(model, mu=request.param), ["drop_pct", "increase", "ebpg", "miou", "bbox"])
    left = []
    for key, row in enumerate(samples()):
        left += session.push(key, network_input(row["file"]), target=int(row["label"]), truth=truth_of(row))
    left += session.finish()
    assert [record.key for record in left] == list(range(COUNT))
    return left


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "key", [key if key in OFTEN else pytest.param(key, marks=pytest.mark.soak) for key in range(COUNT)]
)
def test_map_and_metrics_of_a_photograph_equal_the_oracle(
    model: nn.Module, explained: list[Explained], request: pytest.FixtureRequest, key: int
):
    row, record = samples()[key], explained[key]
    image, truth = network_input(row["file"]), truth_of(row).numpy()
    oracle = reference.sise(
        model, LAYERS, image, int(row["label"]), mu=request.node.callspec.params["explained"], chunk=8
    )
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
