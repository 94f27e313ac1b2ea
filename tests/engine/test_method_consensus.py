"""Consensus: ranks as scipy's, the mean and the disagreement by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from heatlas.engine.explainer import Explainer
from heatlas.engine.explanation import Explanation, Explanations
from heatlas.engine.methods import consensus
from heatlas.engine.methods.consensus import Consensus, disagreement, pixel_ranks
from heatlas.engine.methods.protocol import Cost
from heatlas.engine.methods.registry import find_method, make_explainer, settings_class
from heatlas.engine.requests import Steps
from heatlas.errors import SettingsError
from scipy.stats import rankdata, spearmanr
from torch import Tensor, nn

from ..support.oracle_nets import images_like, three_blocks

SIZE = (24, 20)
TARGETS = torch.tensor([3, 0])


IMAGES = torch.zeros(1, 3, 2, 2)
UP = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])


class Given(Explainer):
    """A method that says what it is told."""

    declared = replace(find_method("occlusion"), name="given")

    def explain_image(self, image: Tensor, target: int | None, seed: int) -> Steps[Explanation]:
        yield from ()
        return Explanation("ok", None, 0, 0, 0.5, 0.0, map=TOLD[self.batch_size - 1][0], n_forwards=2, n_backwards=1)


TOLD: list[Tensor] = []


def explained(monkeypatch: pytest.MonkeyPatch, *maps: Tensor) -> Explanations:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    TOLD[:] = maps
    members = [Given(model, batch_size=number + 1) for number in range(len(maps))]
    monkeypatch.setattr(Consensus, "members", members)
    return Consensus(model).explain(IMAGES, [0])


def test_the_mean_rank_of_two_maps_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    result = explained(
        monkeypatch, UP, torch.tensor([[[5.0, 5.0], [9.0, 7.0]]])
    )  # ranks 0 1 2 3 and 0.5 0.5 3 2, over 3
    torch.testing.assert_close(result.maps, torch.tensor([[[0.25, 0.75], [2.5, 2.5]]]) / 3)
    assert (result.n_forwards, result.n_backwards) == ([5], [2])


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
    ranks = torch.stack([pixel_ranks(entry) for entry in maps])
    assert float(disagreement(ranks)[0]) == pytest.approx(expected)


def test_methods_against_scipy() -> None:
    net, images = three_blocks(0, size=SIZE), images_like(2, 3, SIZE, seed=1)
    settings = settings_class("consensus")(of=("grad_cam", "layer_cam", "occlusion"))
    result = Consensus(net, of=settings.of).explain(images, TARGETS)
    maps = [make_explainer(name, net).explain(images, TARGETS).maps.double().numpy() for name in settings.of]
    for number in range(2):
        ranks = [(rankdata(entry[number]) - 1) / (entry[number].size - 1) for entry in maps]
        np.testing.assert_allclose(result.maps[number].numpy(), np.mean(ranks, axis=0).reshape(SIZE), atol=1e-6)
        pairs = [
            spearmanr(entry[number].ravel(), two[number].ravel()).statistic for entry, two in combinations(maps, 2)
        ]
        assert float(result.extras["disagreement"][number]) == pytest.approx(1 - np.mean(pairs), abs=1e-6)  # pyright: ignore[reportArgumentType]
    assert consensus.cost(settings) == Cost(1 + 1 + 170, 1 + 1)
    assert (result.n_forwards, result.n_backwards) == ([1 + 1 + 1 + 170] * 2, [2] * 2)


def test_it_may_ask_sise_whose_cost_is_the_images() -> None:
    assert consensus.cost(settings_class("consensus")(of=("sise", "grad_cam"))) is None
    net, images = three_blocks(0, size=SIZE), images_like(2, 3, SIZE, seed=1)
    result = Consensus(net, of=("sise", "grad_cam")).explain(images, TARGETS)
    assert min(result.n_forwards) > 3
    assert float(result.maps.amax()) <= 1


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
        settings_class("consensus")(of=of)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown method 'gradcam'; did you mean 'grad_cam'"):
        Consensus(three_blocks(0), of=("gradcam", "sise"))
