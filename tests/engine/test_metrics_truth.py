"""Localisation: the pointing game and rank accuracy by hand, and what every localisation metric owes a perfect map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from heatlas.engine.metrics import METRICS
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ..support.metric_cases import measure

LOCALISATION = tuple(name for name, metric in METRICS.items() if metric.needs == "truth")
RANKED = ("miou", "bbox", "pointing_hit", "relevance_rank_accuracy")


def peak_at(row: int, column: int, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    map_ = torch.zeros(1, *size)
    map_[0, row, column] = 1
    return map_


def box(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    truth = torch.zeros(1, *size, dtype=torch.bool)
    truth[0, top:bottom, left:right] = True
    return truth


def test_every_localisation_metric_is_covered_here():
    assert set(LOCALISATION) == {
        "ebpg",
        "miou",
        "bbox",
        "pointing_hit",
        "relevance_rank_accuracy",
        "iou_half",
        "bbox_iou_half",
    }


@pytest.mark.parametrize(("row", "column", "hit"), [
    (32, 32, 1), (32, 54, 1),
    (32, 55, 0),  # 15 px to the right of column 40: 15^2 is not less than 15^2
    (8, 32, 1),  # row 22 is 14 below
    (7, 32, 0),  # exactly 15
    (51, 49, 0),  # (12, 9) from the corner (39, 40): 144 + 81 = 225
    (50, 49, 1),  # (11, 9): 121 + 81 = 202
])  # fmt: skip
def test_the_pointing_game_tolerates_less_than_15_pixels(row: int, column: int, hit: int):
    assert measure("pointing_hit", peak_at(row, column), truth=box(22, 22, 40, 41)) == [hit]


def torchray_rule(truth: np.ndarray, row: int, column: int) -> bool:
    """TorchRay's acceptance region, written out: any ground-truth pixel closer than 15."""
    return any((y - row) ** 2 + (x - column) ** 2 < 15**2 for y, x in zip(*truth.nonzero(), strict=True))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, (40, 30), elements=st.booleans(), fill=st.just(False)), st.integers(0, 39), st.integers(0, 29))
def test_the_pointing_game_against_its_definition(truth: np.ndarray, row: int, column: int):
    value = measure("pointing_hit", peak_at(row, column, (40, 30)), truth=torch.tensor(truth)[None])[0]

    assert (math.isnan(value) and not truth.any()) or value == torchray_rule(truth, row, column)


def test_tied_maxima_share_the_hit():
    map_ = peak_at(10, 10) + peak_at(10, 60) + peak_at(60, 60) + peak_at(60, 10)

    assert measure("pointing_hit", map_, truth=box(8, 8, 12, 12)) == [0.25]


def test_rank_accuracy_by_hand():
    map_ = torch.tensor([[[0.9, 0.8, 0.1], [0.7, 0.0, 0.0]]])
    truth = torch.tensor([[[True, False, True], [True, False, False]]])

    assert measure("relevance_rank_accuracy", map_, truth=truth) == pytest.approx([2 / 3])
    assert measure("bbox", map_, truth=truth) == pytest.approx([2 / 3])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_a_perfect_map_scores_1_and_an_inverted_one_near_0(seed: int):
    """The ground truth takes the top 20 % of the pixels, so that `miou`, which takes as many, can reach 1."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(400, dtype=torch.bool)
    truth[torch.randperm(400, generator=generator)[:80]] = True
    truth = truth.view(1, 20, 20)
    for name in LOCALISATION:
        assert measure(name, truth.float(), truth=truth) == [1.0]
    for name in ("ebpg", "miou", "bbox", "relevance_rank_accuracy"):
        assert measure(name, 1 - truth.float(), truth=truth) == [0.0]


def test_an_inverted_map_misses_the_pointing_game():
    truth = box(0, 0, 40, 64)
    inverted = torch.zeros(1, 64, 64)
    inverted[0, 55:] = 1

    assert measure("pointing_hit", inverted, truth=truth) == [0.0]


@pytest.mark.parametrize("name", LOCALISATION)
def test_an_empty_ground_truth_is_no_miss_but_no_value(name: str):
    assert math.isnan(measure(name, torch.rand(1, 8, 8), truth=torch.zeros(1, 8, 8, dtype=torch.bool))[0])


@pytest.mark.parametrize("name", ["pointing_hit", "relevance_rank_accuracy"])
@pytest.mark.parametrize("map_", [torch.zeros(1, 8, 8), torch.ones(1, 8, 8), torch.ones(1, 1, 1)])
def test_a_map_that_ranks_nothing_never_hits(name: str, map_: torch.Tensor):
    assert math.isnan(measure(name, map_, truth=torch.ones_like(map_, dtype=torch.bool))[0])


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.float32, (3, 9, 7), elements=st.integers(0, 8).map(float)),
    hnp.arrays(bool, (3, 9, 7)),
    st.sampled_from(
        [lambda map_: 3 * map_ + 1, lambda map_: map_**3, torch.exp, lambda map_: map_.clamp(min=0).sqrt()]
    ),
)
def test_ranks_alone_decide(maps: np.ndarray, truth: np.ndarray, transform):
    map_, inside = torch.tensor(maps), torch.tensor(truth)
    for name in RANKED:
        plain, transformed = measure(name, map_, truth=inside), measure(name, transform(map_), truth=inside)
        assert plain == pytest.approx(transformed, nan_ok=True, abs=0)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (4, 6, 5), elements=st.integers(0, 3).map(float)), hnp.arrays(bool, (4, 6, 5)))
def test_neighbours_and_order_do_not_matter(maps: np.ndarray, truth: np.ndarray):
    map_, inside = torch.tensor(maps), torch.tensor(truth)
    for name in LOCALISATION:
        together = measure(name, map_, truth=inside)
        alone = [measure(name, map_[k : k + 1], truth=inside[k : k + 1])[0] for k in range(4)]
        back = measure(name, map_.flip(0), truth=inside.flip(0))[::-1]
        assert together == pytest.approx(alone, nan_ok=True, abs=0)
        assert together == pytest.approx(back, nan_ok=True, abs=0)
