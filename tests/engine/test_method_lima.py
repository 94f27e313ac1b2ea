"""LiMA: the search written out slowly, its cost, and a model whose important region is known."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.methods.lima import LiMA, cost, grid_cells
from heatlas.errors import SettingsError
from torch import Tensor, nn

from ..support.oracle_nets import images_like


class Corner(nn.Module):
    """Class 1 is the mean of the upper right quarter, and a little of the rest."""

    def forward(self, images: Tensor) -> Tensor:
        corner = images[:, :, :4, 4:].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(corner), 3 * corner + 0.1 * images.mean((1, 2, 3))], dim=1)


def small_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()


def test_the_region_that_decides_comes_first() -> None:
    map_ = LiMA(Corner(), grid=2).explain(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 1).maps[0]
    assert float(map_[:4, 4:].min()) == 1
    assert float(map_[4:].max()) < 1


@pytest.mark.parametrize("pending", [1, 3, 20])
def test_it_is_the_bidirectional_greedy_search(pending: int) -> None:
    model, image, grid, target = small_net(), images_like(1, 3, (9, 9), seed=3), 3, 2
    cells = grid_cells((9, 9), grid)

    def worth(regions: list[int]) -> float:
        shown = torch.zeros(9, 9)
        for region in regions:
            shown[cells == region] = 1
        with torch.no_grad():
            alone, hidden = (model(image * mask).softmax(1)[0, target].item() for mask in (shown, 1 - shown))
        return 20 * alone + 5 * (1 - hidden)

    first: list[int] = []
    last: list[int] = []
    left = list(range(9))
    while len(left) > 1:
        values = {region: worth([*first, region]) for region in left}
        best = max(left, key=lambda region: values[region])
        if len(left) > pending:
            low = sorted((region for region in left if region != best), key=lambda region: values[region])[:pending]
            worst = min(low, key=lambda region: worth([*last, region]))
            last.append(worst)
            left.remove(worst)
        first.append(best)
        left.remove(best)
    order = [*first, *left, *reversed(last)]
    result = LiMA(model, grid=grid, pending=pending).explain(image, target)
    ours = [float(result.maps[0][cells == region][0]) for region in order]
    assert ours == pytest.approx([1 - place / 9 for place in range(9)])
    assert result.n_forwards == [cost(LiMA.declared.settings(grid=grid, pending=pending)).forwards]


def test_a_model_that_no_region_moves_gives_no_map() -> None:
    class Same(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.new_zeros(len(images), 2)

    assert LiMA(Same(), grid=2).explain(torch.rand(1, 3, 8, 8)).statuses == ["constant_map"]


def test_the_default_search_costs_what_it_says() -> None:
    assert cost(LiMA.declared.settings()).forwards == 1609
    with pytest.raises(SettingsError, match="grid must be at least 2, got 1"):
        LiMA(small_net(), grid=1)
