"""Agreement of two maps, and RISE maps of several networks from the same masks."""

from __future__ import annotations

import math

import pytest
import torch
from heatlas.engine.agreement import CHANCE_IOU, agreement_of, strongest_iou, wasserstein_distance
from heatlas.engine.methods.registry import make_explainer, settings_class
from heatlas.engine.random_mask_maps import rise_maps
from heatlas.engine.scoring.confidence import SEGMENTATION, SOFTMAX, scene_of
from heatlas.engine.scoring.scoring_options import Scoring
from scipy import stats
from torch import nn


def test_a_map_agrees_with_itself() -> None:
    image_map = torch.rand(16, 24, generator=torch.Generator().manual_seed(0))
    result = agreement_of(image_map, image_map)
    assert (result.spearman, result.iou) == (pytest.approx(1), 1)
    assert result.wasserstein == pytest.approx(0, abs=1e-7)


def test_rank_correlation_is_scipy_s_and_the_strongest_pixels_those_of_a_slow_loop() -> None:
    first, second = torch.rand(2, 12, 10, generator=torch.Generator().manual_seed(1))
    result = agreement_of(first, second)
    assert result.spearman == pytest.approx(stats.spearmanr(first.flatten(), second.flatten()).statistic)
    chosen = [set(sorted(range(120), key=lambda place: -flat[place])[:24]) for flat in (first.flatten().tolist(), second.flatten().tolist())]  # fmt: skip
    assert result.iou == len(chosen[0] & chosen[1]) / len(chosen[0] | chosen[1])


@pytest.mark.parametrize(("down", "right"), [(0, 3), (2, 0), (3, 4), (7, 7)])
def test_mass_that_moves_by_cells_moves_by_their_distance(down: int, right: int) -> None:
    first, second = torch.zeros(2, 32, 32)
    first[:4, :4] = 0.7
    second[4 * down : 4 * down + 4, 4 * right : 4 * right + 4] = 0.2
    assert wasserstein_distance(first, second) == pytest.approx(math.hypot(down, right) / 8, abs=1e-6)


def test_ties_are_taken_in_row_major_order() -> None:
    first = torch.ones(4, 5)
    second = torch.zeros(4, 5)
    second[0, :4] = 1
    assert strongest_iou(first, second) == 1


def test_unrelated_maps_share_as_much_of_their_strongest_pixels_as_is_said() -> None:
    torch.manual_seed(0)
    shared = [strongest_iou(torch.rand(20, 20), torch.rand(20, 20)) for _ in range(200)]
    assert sum(shared) / len(shared) == pytest.approx(CHANCE_IOU, abs=0.01)


def test_a_constant_map_agrees_with_nothing() -> None:
    result = agreement_of(torch.zeros(8, 8), torch.rand(8, 8))
    assert math.isnan(result.spearman)
    assert math.isnan(result.iou)
    assert math.isnan(result.wasserstein)


class Classifier(nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(images).relu().mean(dim=(2, 3)) * 5)


def test_maps_of_the_same_masks_are_those_that_the_method_makes_for_each_network_alone() -> None:
    image = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(2))
    networks = [Classifier(seed).eval() for seed in (0, 1)]
    with torch.no_grad():
        maps = rise_maps(image, 1, 5, networks, confidence=SOFTMAX, scene=None, count=50, batch_size=16)
    for network, image_map in zip(networks, maps, strict=True):
        explainer = make_explainer("rise", network, settings_class("rise")(masks=50, seed=5), Scoring(batch_size=16))
        expected = explainer.explain(image[None], 1, seeds=[5]).maps[0]
        torch.testing.assert_close(image_map.float(), expected.float(), atol=1e-4, rtol=0)
    assert not torch.allclose(maps[0], maps[1], atol=1e-3)


def test_of_dense_models_one_scene_counts_for_all() -> None:
    image = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3, padding=1).eval()
    with torch.no_grad():
        scene = scene_of(network(image[None]))
        target = int(scene[0, 0])
        [own] = rise_maps(image, target, 0, [network], confidence=SEGMENTATION, scene=scene, count=40, batch_size=40)
    settings, scoring = settings_class("rise")(masks=40, seed=0), Scoring(batch_size=8, confidence=SEGMENTATION)
    expected = make_explainer("rise", network, settings, scoring).explain(image[None], target, seeds=[0]).maps[0]
    torch.testing.assert_close(own.float(), expected.float(), atol=1e-4, rtol=0)


def test_a_network_to_which_no_mask_makes_a_difference_has_no_map() -> None:
    def blind(images: torch.Tensor) -> torch.Tensor:
        return images.new_zeros(len(images), 2)

    def half_blind(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images.new_zeros(len(images)), images.new_full((len(images),), -1000.0)], dim=1)

    image = torch.rand(3, 8, 8)
    for network in (blind, half_blind):
        [image_map] = rise_maps(image, 1, 0, [network], confidence=SOFTMAX, scene=None, count=6, batch_size=4)
        assert float(image_map.max()) == 0, "how often a pixel is shown is no evidence"
