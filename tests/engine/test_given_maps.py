"""A session that is given a map measures it as if it had made it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from heatlas import statuses
from heatlas.engine.explanation import Explanation
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics import METRICS
from heatlas.engine.session import Explained, ExplainSession
from heatlas.errors import SettingsError
from torch import Tensor, nn

from ..support.oracle_nets import images_like, three_blocks

METRIC_NAMES = [name for name, metric in METRICS.items() if not metric.layers]
IMAGES = 3


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return three_blocks(0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(IMAGES, 3, (24, 24), seed=1)


def finished(
    model: nn.Module, images: Tensor, metrics, given: dict[int, Explanation], **options
) -> dict[int, Explained]:
    session = ExplainSession(SISE(model, batch_size=16), metrics, seed=3, **options)
    truth = torch.zeros(24, 24, dtype=torch.bool)
    truth[4:15, 6:20] = True
    left = []
    for key, image in enumerate(images):
        left += session.push(key, image, truth=truth, label=key % 3, sample_seed=key, given=given.get(key))
    return {entry.key: entry for entry in left + session.finish()}


def as_given(one: Explained) -> Explanation:
    return Explanation(one.status, one.error, one.prediction, one.target, one.confidence, one.logit, map=one.map)


def defined(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Without those that mean nothing for a classifier."""
    return {name: value for name, value in metrics.items() if value is not None}


def test_every_metric_is_that_of_the_session_that_made_the_map(model: nn.Module, images: Tensor):
    made = finished(model, images, METRIC_NAMES, {})
    measured = finished(model, images, METRIC_NAMES, {key: as_given(entry) for key, entry in made.items()})

    for key, entry in measured.items():
        assert defined(entry.metrics) == pytest.approx(defined(made[key].metrics), rel=1e-3, abs=1e-4), key
        assert entry.metrics.keys() == made[key].metrics.keys()
        assert (entry.prediction, entry.target, entry.confidence) == (
            made[key].prediction,
            made[key].target,
            made[key].confidence,
        )
        assert torch.equal(entry.map, made[key].map)
        spent_on_the_map = 1 + sum(made[key].mask_counts)
        assert entry.n_forwards == made[key].n_forwards - spent_on_the_map


def test_its_own_target_counts(model: nn.Module, images: Tensor):
    map_ = torch.rand(24, 24)
    session = ExplainSession(SISE(model, batch_size=16), ["drop_pct"])
    pushed = session.push(0, images[0], target=0, given=Explanation("ok", None, 1, 2, 0.5, 0.1, map=map_))
    [entry] = [*pushed, *session.finish()]
    with torch.no_grad():
        both = model(torch.stack([images[0], images[0] * top_15_percent(map_)]))
    whole, kept = torch.softmax(both, dim=1)[:, 2].tolist()
    assert entry.target == 2
    assert entry.metrics["drop_pct"] == pytest.approx(max(0, whole - kept) / whole * 100, abs=1e-3)


def top_15_percent(map_: Tensor) -> Tensor:
    mask = torch.zeros(map_.numel())
    mask[map_.flatten().argsort(descending=True)[: round(0.15 * map_.numel())]] = 1
    return mask.view_as(map_)


def test_given_and_own_maps_may_be_in_flight_together_and_leave_in_order(model: nn.Module, images: Tensor):
    made = finished(model, images, ["drop_pct", "entropy"], {})
    mixed = finished(model, images, ["drop_pct", "entropy"], {1: as_given(made[1])})
    assert list(mixed) == list(range(IMAGES))
    for key in made:
        assert mixed[key].metrics == pytest.approx(made[key].metrics, rel=1e-3, abs=1e-4)


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 3), torch.nan)


def test_what_was_given_is_left_alone(images: Tensor):
    given = Explanation("ok", None, 1, 1, 0.5, 0.1, map=torch.rand(24, 24), n_forwards=77)
    entry = finished(Broken(), images[:1], ["drop_pct", "entropy"], {0: given})[0]
    assert (entry.status, entry.map, entry.metrics) == (statuses.NON_FINITE, None, {"drop_pct": None, "entropy": None})
    assert given.status == "ok"
    assert given.map is not None
    assert given.n_forwards == 77


def test_a_failure_that_is_given_comes_back_without_metrics(model: nn.Module, images: Tensor):
    given = Explanation(statuses.NO_EVIDENCE, "no map raises the score", 1, 1, 0.5, 0.1)
    entry = finished(model, images[:1], ["drop_pct"], {0: given})[0]
    assert (entry.status, entry.error, entry.metrics, entry.n_forwards) == (
        given.status,
        given.error,
        {"drop_pct": None},
        0,
    )


def test_a_map_of_another_size_is_refused_and_nothing_is_taken_in(model: nn.Module, images: Tensor):
    session = ExplainSession(SISE(model), ["entropy"])
    with pytest.raises(ValueError, match=r"the given map is \(7, 7\), its image \(24, 24\)"):
        session.push(0, images[0], given=Explanation("ok", None, 1, 1, 0.5, 0.1, map=torch.rand(7, 7)))
    assert session.alive == ()


def test_without_block_maps_their_agreement_is_not_defined(model: nn.Module, images: Tensor):
    given = Explanation("ok", None, 1, 1, 0.5, 0.1, map=torch.rand(24, 24))
    result = finished(model, images[:1], ["layer_agreement", "gini"], {0: given})[0]
    assert result.status == "ok"
    assert result.metrics["layer_agreement"] is None
    assert result.metrics["gini"] is not None


def test_an_unknown_metric_is_refused_as_ever(model: nn.Module):
    with pytest.raises(SettingsError, match="did you mean 'entropy'"):
        ExplainSession(SISE(model), ["entropie"])
