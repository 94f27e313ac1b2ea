"""Consensus: ranks as scipy's, the mean and the disagreement by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from heatlas.engine.methods import consensus
from heatlas.engine.methods.batch_settings import ConsensusSettings
from heatlas.engine.methods.consensus import Consensus, disagreement, pixel_ranks
from heatlas.engine.methods.protocol import Cost, MethodMaps
from heatlas.engine.methods.registry import find_method
from heatlas.errors import SettingsError
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from ..support.oracle_nets import images_like, three_blocks

SIZE = (24, 20)
TARGETS = torch.tensor([3, 0])


class Given:
    """A method that says what it is told."""

    def __init__(self, maps: Tensor, cost: Cost = Cost(2, 1)):  # noqa: B008
        self.maps = maps
        self.cost = cost

    def explain(self, images: Tensor, targets: Tensor, seeds) -> MethodMaps:
        return MethodMaps(self.maps, self.cost)


IMAGES = torch.zeros(1, 3, 2, 2)
UP = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])


def explained(*maps: Tensor) -> MethodMaps:
    members = {str(number): Given(one) for number, one in enumerate(maps)}
    return Consensus(members).explain(IMAGES, TARGETS[:1], [0])


def test_the_mean_rank_of_two_maps_by_hand() -> None:
    found = explained(UP, torch.tensor([[[5.0, 5.0], [9.0, 7.0]]]))  # ranks 0 1 2 3 and 0.5 0.5 3 2, over 3
    torch.testing.assert_close(found.maps, torch.tensor([[[0.25, 0.75], [2.5, 2.5]]]) / 3)
    assert found.cost == Cost(4, 2)


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ((UP, 100 * UP + 3), 0.0),
        ((UP, UP.square()), 0.0),
        ((UP, -UP), 2.0),
        ((UP, UP, -UP), 1 + 1 / 3),
        ((UP, torch.ones_like(UP)), 1.0),
    ],
    ids=["scaled", "monotone", "opposed", "one of three opposed", "one says nothing"],
)
def test_disagreement(maps: tuple[Tensor, ...], expected: float) -> None:
    assert float(explained(*maps).extras["disagreement"]) == pytest.approx(expected)


def test_methods_against_scipy() -> None:
    net, images = three_blocks(0, size=SIZE), images_like(2, 3, SIZE, seed=1)
    settings = ConsensusSettings(of=("grad_cam", "layer_cam", "occlusion"))
    found = consensus.build(net, settings).explain(images, TARGETS, [0, 0])
    maps = [
        method.build(net, method.settings()).explain(images, TARGETS, [0, 0]).maps.double().numpy()
        for method in map(find_method, settings.of)
    ]
    for number in range(2):
        ranks = [(rankdata(one[number]) - 1) / (one[number].size - 1) for one in maps]
        np.testing.assert_allclose(found.maps[number].numpy(), np.mean(ranks, axis=0).reshape(SIZE), atol=1e-6)
        pairs = [spearmanr(one[number].ravel(), two[number].ravel()).statistic for one, two in combinations(maps, 2)]
        assert float(found.extras["disagreement"][number]) == pytest.approx(1 - np.mean(pairs), abs=1e-6)
    assert found.cost == consensus.cost(settings) == Cost(1 + 1 + 170, 1 + 1)


def test_it_may_ask_sise_whose_cost_is_the_images() -> None:
    settings = ConsensusSettings(of=("sise", "grad_cam"))
    assert consensus.cost(settings) is None
    net, images = three_blocks(0, size=SIZE), images_like(2, 3, SIZE, seed=1)
    found = consensus.build(net, settings).explain(images, TARGETS, [0, 0])
    assert found.cost.forwards > 2
    assert float(found.maps.amax()) <= 1


def test_a_map_that_is_not_finite_breaks_its_image_alone() -> None:
    maps = torch.stack([UP[0], UP[0]])
    maps[1, 0, 0] = torch.nan
    ranks = pixel_ranks(maps)
    assert ranks[0].isfinite().all()
    assert ranks[1].isnan().all()
    assert disagreement(torch.stack([ranks, ranks]))[0] == pytest.approx(0)


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (("grad_cam",), "of must name two methods or more, got grad_cam"),
        ((), "got none"),
        (("grad_cam", "grad_cam", "sise"), "names a method twice"),
        (("grad_cam", "consensus"), "must not name consensus itself"),
    ],
)
def test_settings_that_make_no_consensus_are_refused(of: tuple[str, ...], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        ConsensusSettings(of=of)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown method 'gradcam'; did you mean 'grad_cam'"):
        consensus.build(three_blocks(0), ConsensusSettings(of=("gradcam", "sise")))
