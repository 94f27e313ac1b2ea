"""Metrics and descriptors that need nothing but the map: by hand, against scipy, and where they are not defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.filters import threshold_otsu

from ..support.metric_cases import measure

MAP_ONLY = (
    "entropy", "gini", "complexity_l1", "border_share", "centroid_x", "centroid_y", "spread", "n_components", "top_area",
)  # fmt: skip
SCALE_FREE = tuple(name for name in MAP_ONLY if name != "complexity_l1")

maps_strategy = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(2, 9), st.integers(2, 9)),
    elements=st.integers(0, 32).map(lambda level: level / 32),
)  # fmt: skip


def one_map(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.float32)


def same(first: list[float], second: list[float]) -> bool:
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("name", "expected"), [
    ("entropy", 0.5 * math.log(2) + 2 * 0.25 * math.log(4)),
    ("gini", (1 * -3 * 0 + -1 * 1 + 1 * 1 + 3 * 2) / (4 * 4)),
    ("complexity_l1", 0.25),
    ("centroid_x", 0.75 * 0.75 + 0.25 * 0.25),
    ("centroid_y", 0.5 * 0.25 + 0.5 * 0.75),
    ("top_area", 0.75),  # Otsu: 0 against the rest separates as well as the rest against 1/2, and the lower threshold is taken
    ("n_components", 1.0),
    ("border_share", 1.0),
])  # fmt: skip
def test_by_hand(name: str, expected: float):
    map_ = one_map([0.0, 0.5], [0.25, 0.25])  # sum 1: shares 0, 1/2, 1/4, 1/4; in units of 1/4: 0, 2, 1, 1

    assert measure(name, map_) == pytest.approx([expected])


def test_spread_by_hand():
    opposite_corners = torch.zeros(1, 3, 5)
    opposite_corners[0, 0, 0] = opposite_corners[0, 2, 4] = 0.5

    # both lie half the distance of the corner pixels' centres, sqrt(2^2 + 4^2), from the middle
    assert measure("spread", opposite_corners) == pytest.approx([math.sqrt(20) / 2 / math.sqrt(9 + 25)])


def test_the_frame_is_a_tenth_of_each_side():
    map_ = torch.zeros(1, 20, 30)
    map_[0, :2] = map_[0, -2:] = 1
    map_[0, :, :3] = map_[0, :, -3:] = 1
    inner = torch.zeros(1, 20, 30)
    inner[0, 2:18, 3:27] = 1

    assert measure("border_share", torch.cat([map_, inner])) == [1.0, 0.0]


def test_regions_touch_over_corners():
    map_ = torch.zeros(1, 6, 6)
    map_[0, 0, 0] = map_[0, 1, 1] = 1  # one region over the corner
    map_[0, 4, 4] = 1

    assert measure("n_components", map_) == [2.0]


def test_extremes_of_concentration():
    peak = torch.zeros(1, 10, 10)
    peak[0, 3, 3] = 0.7

    assert measure("gini", peak) == pytest.approx([0.99])
    assert measure("entropy", peak) == pytest.approx([0.0])
    assert measure("spread", peak) == pytest.approx([0.0])


@settings(max_examples=40, deadline=None)
@given(maps_strategy)
def test_against_scipy_and_skimage(maps: np.ndarray):
    entropies, ginis = measure("entropy", torch.tensor(maps)), measure("gini", torch.tensor(maps))
    across, down = measure("centroid_x", torch.tensor(maps)), measure("centroid_y", torch.tensor(maps))
    areas, regions = measure("top_area", torch.tensor(maps)), measure("n_components", torch.tensor(maps))
    for place, map_ in enumerate(maps.astype(np.float64)):
        if map_.max() == map_.min():
            continue
        assert entropies[place] == pytest.approx(scipy.stats.entropy(map_.ravel()), abs=1e-12)
        pairs = np.abs(map_.ravel()[:, None] - map_.ravel()[None]).sum()  # the mean-difference form of the Gini index
        assert ginis[place] == pytest.approx(pairs / (2 * map_.size * map_.sum()), abs=1e-12)
        top, left = ndimage.center_of_mass(map_)
        assert (down[place], across[place]) == pytest.approx(
            ((top + 0.5) / map_.shape[0], (left + 0.5) / map_.shape[1])
        )
        mask = map_ > threshold_otsu(map_)
        assert areas[place] == pytest.approx(mask.mean())
        assert regions[place] == ndimage.label(mask, np.ones((3, 3)))[1]


@pytest.mark.parametrize("name", MAP_ONLY)
@pytest.mark.parametrize("map_", [torch.zeros(1, 4, 5), torch.full((1, 4, 5), 0.3), torch.ones(1, 1, 1)],
                         ids=["all-zero", "constant", "one-pixel"])  # fmt: skip
def test_a_map_that_ranks_nothing_has_no_value(name: str, map_: torch.Tensor):
    assert math.isnan(measure(name, map_)[0])


@pytest.mark.parametrize("name", ["entropy", "gini", "border_share", "centroid_x", "centroid_y", "spread"])
def test_negative_mass_is_not_a_distribution(name: str):
    assert math.isnan(measure(name, one_map([-1.0, 1.0], [0.5, 0.5]))[0])


@settings(max_examples=30, deadline=None)
@given(maps_strategy, st.randoms(use_true_random=False))
def test_a_map_s_value_does_not_depend_on_its_neighbours_or_place(maps: np.ndarray, random):
    batch = torch.tensor(maps)
    order = list(range(len(batch)))
    random.shuffle(order)
    for name in MAP_ONLY:
        together = measure(name, batch)
        assert same([together[place] for place in order], measure(name, batch[order]))
        assert same(together, [measure(name, entry[None])[0] for entry in batch])


@settings(max_examples=30, deadline=None)
@given(maps_strategy, st.sampled_from([0.25, 0.5, 4.0, 1024.0]))
def test_scale_does_not_matter_except_to_complexity(maps: np.ndarray, scale: float):
    batch = torch.tensor(maps)
    for name in SCALE_FREE:
        assert measure(name, batch) == pytest.approx(measure(name, batch * scale), abs=1e-9, nan_ok=True)
    ordinary, scaled = measure("complexity_l1", batch), measure("complexity_l1", batch * scale)
    assert scaled == pytest.approx([value * scale for value in ordinary], nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (2, 3, 4, 5), elements=st.integers(0, 6).map(float)))
def test_layer_agreement_is_the_mean_pairwise_spearman(layers: np.ndarray):
    values = measure("layer_agreement", torch.rand(2, 4, 5), layer_maps=torch.tensor(layers))
    for value, blocks in zip(values, layers.reshape(2, 3, 20), strict=True):
        if any(block.min() == block.max() for block in blocks):
            assert math.isnan(value)
        else:
            pairs = [scipy.stats.spearmanr(blocks[a], blocks[b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
            assert value == pytest.approx(np.mean(pairs), abs=1e-12)


def test_one_block_has_nothing_to_agree_with():
    assert math.isnan(measure("layer_agreement", torch.rand(1, 4, 4), layer_maps=torch.rand(1, 1, 4, 4))[0])


def test_layer_agreement_says_what_it_misses():
    with pytest.raises(ValueError, match="without the block maps"):
        measure("layer_agreement", torch.rand(1, 4, 4))
