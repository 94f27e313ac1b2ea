"""The Gaussian process and the choice of masks, against what can be computed by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from heatlas.engine.sise.layer_masks import LayerMasks
from heatlas.engine.sise.mask_rounds import MaskRounds, pooled
from heatlas.engine.sise.mask_surrogate import NOISE, Posterior, a_optimal, margin, prior_covariance, probabilities
from heatlas.engine.sise.masks import GRID
from heatlas.engine.sise.otsu_sensitivity import EVERYWHERE, importance
from torch import Tensor

LAYERS = [slice(0, 4), slice(4, 9)]


@pytest.fixture
def features() -> Tensor:
    return torch.rand(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def covariance(prior: Tensor, scored: list[int]) -> Tensor:
    """By the textbook, with no factor of anything."""
    among = prior[scored][:, scored] + NOISE * torch.eye(len(scored), dtype=torch.float64)
    return prior - prior[:, scored] @ among.inverse() @ prior[scored]


def test_two_masks_by_hand():
    prior = prior_covariance(torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64))
    nearness, linear = torch.exp(torch.tensor(-0.5, dtype=torch.float64)), 0.3
    expected = torch.stack([torch.stack([1 + linear + 0 * nearness, nearness - linear]), torch.stack([nearness - linear, 1 + linear + 0 * nearness])])  # fmt: skip
    torch.testing.assert_close(prior, expected)


def test_the_posterior_is_the_textbooks(features: Tensor):
    prior, scored = prior_covariance(features), [1, 5, 7]
    margins = torch.tensor([-2.0, 0.5, 1.0], dtype=torch.float64)
    result = Posterior(prior, torch.tensor(scored), margins)
    among = prior[scored][:, scored] + NOISE * torch.eye(3, dtype=torch.float64)
    weights = among.inverse().sum(dim=0)
    level = (weights @ margins) / weights.sum()
    rest = margins - level
    torch.testing.assert_close(result.mean, level + prior[:, scored] @ among.inverse() @ rest)
    scale = rest @ among.inverse() @ rest / 3
    torch.testing.assert_close(result.variance, scale * covariance(prior, scored).diagonal())


def test_it_nearly_interpolates_what_is_scored(features: Tensor):
    prior = prior_covariance(features)
    margins = torch.linspace(-3, 3, 9, dtype=torch.float64)
    result = Posterior(prior, torch.arange(9), margins)
    assert (result.mean - margins).abs().max() < 0.2
    assert result.variance.max() < 2 * NOISE * result.scale


def test_every_choice_lowers_the_maps_variance_most(features: Tensor):
    prior, views = prior_covariance(features), features.flip(0).contiguous()

    def left(scored: list[int]) -> float:
        matrix = covariance(prior, scored)
        return sum(float(torch.trace(views[layer].T @ matrix[layer, layer] @ views[layer])) for layer in LAYERS)

    start = [3]
    known = torch.tensor(start)
    chosen = a_optimal(Posterior(prior, known, torch.zeros(1, dtype=torch.float64)), views, LAYERS, 5, known).tolist()
    known = list(start)
    for mask in chosen:
        best = min((layer for layer in range(9) if layer not in known), key=lambda layer: left([*known, layer]))
        assert mask == best
        known.append(mask)
    assert all(after < before for before, after in pairwise(left(known[:count]) for count in range(1, 7)))


def test_no_more_are_chosen_than_are_left(features: Tensor):
    posterior = Posterior(prior_covariance(features), torch.tensor([], dtype=torch.long), torch.zeros(0))
    chosen = a_optimal(posterior, features, LAYERS, 50, torch.tensor([2, 6]))
    assert sorted(chosen.tolist()) == [0, 1, 3, 4, 5, 7, 8]


def test_expected_probabilities_by_simulation():
    mean, variance = (
        torch.tensor([-6.0, 0.0, 2.0], dtype=torch.float64),
        torch.tensor([9.0, 4.0, 0.0], dtype=torch.float64),
    )
    draws = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.sigmoid(mean + draws * variance.sqrt())
    expected, spread = probabilities(mean, variance)
    torch.testing.assert_close(expected, values.mean(dim=0), atol=2e-3, rtol=0)
    torch.testing.assert_close(spread, values.var(dim=0), atol=2e-3, rtol=0)
    assert expected[0] > 2 * torch.sigmoid(mean[0]), "an unsure low margin is a higher probability than a sure one"


def test_margins_are_finite_where_scores_saturate():
    assert margin(torch.tensor([0.0, 0.5, 1.0])).isfinite().all()


def test_pixels_behind_a_closed_gate_matter_little_and_those_at_it_most():
    low, high = torch.full((40,), 0.5), torch.cat([torch.zeros(19), torch.tensor([0.45, 0.55]), torch.ones(19)])
    result = importance(torch.stack([low, high]).double())
    assert result[1, 0] < 0.2
    assert result[0, 0] == pytest.approx(EVERYWHERE, abs=0.01)
    assert result[1, 19:21].min() > result[1, 30]
    assert result[0, 30] == pytest.approx(1, abs=0.01)


def test_twin_masks_and_masks_without_mass_are_no_trouble(features: Tensor):
    masks = torch.cat([features, features]).repeat(1, 4)
    mass = masks.sum(dim=1)
    mass[4] = 0
    rounds = MaskRounds(masks, mass, [9, 9], 7, torch.ones(masks.shape[1], dtype=torch.float64))
    while not rounds.finished:
        chosen = rounds.choose()
        rounds.take(chosen, torch.full((len(chosen),), 0.25))
    assert len(rounds.scored) == len(set(rounds.scored.tolist())) == 7
    torch.testing.assert_close(rounds.expected, torch.full((18,), 0.25, dtype=torch.float64), atol=1e-3, rtol=0)
    assert float(rounds.error()) == pytest.approx(0, abs=0.05)


def test_masks_that_differ_where_the_evidence_is_are_less_alike():
    masks = torch.zeros(3, 8, dtype=torch.float64)
    masks[0, 4], masks[1, 0], masks[2, 7] = 1, 1, 1
    left = torch.tensor([8.0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)

    def alike(evidence: Tensor) -> tuple[float, float]:
        prior = MaskRounds(masks, masks.sum(dim=1), [3], 2, evidence)._prior
        return float(prior[0, 1]), float(prior[0, 2])

    for same in (torch.ones_like(left), torch.zeros_like(left)):
        first, other = alike(same)
        assert first == pytest.approx(other)
    at_the_evidence, elsewhere = alike(left)
    assert at_the_evidence < elsewhere - 0.01


def test_evidence_is_grad_cam_of_the_kept_maps():
    generator = torch.Generator().manual_seed(0)
    maps, alphas = torch.randn(5, 7, 7, generator=generator), torch.tensor([0.5, -1.0, 2.0, 0.0, 0.25])
    layer = LayerMasks(torch.zeros(3, GRID, GRID), maps, alphas.double(), 0.0, 1)
    expected = torch.zeros(GRID, GRID)
    for alpha, entry in zip((0.5, 2.0, 0.25), (maps[0], maps[2], maps[4]), strict=True):
        expected += alpha * torch.nn.functional.interpolate(entry[None, None], GRID, mode="bilinear")[0, 0]
    torch.testing.assert_close(layer.evidence(), expected.clamp(min=0).flatten().double(), atol=1e-5, rtol=1e-5)


def test_a_choice_sees_blocks_of_four_pixels():
    views = torch.arange(32, dtype=torch.float64).reshape(2, 16)
    assert pooled(views).tolist() == [[2.5, 4.5, 10.5, 12.5], [18.5, 20.5, 26.5, 28.5]]
    assert pooled(views[:, :9]).shape == (2, 9)
    assert pooled(views[:, :8]).shape == (2, 8)
