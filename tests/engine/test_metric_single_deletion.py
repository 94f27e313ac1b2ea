"""single_deletion_rho: SciPy over cells removed one by one, and where it is not defined."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from heatlas.engine.given_maps import evaluate_maps
from heatlas.engine.metrics import METRICS
from heatlas.engine.metrics.single_deletion import cell_edges, cell_of_pixels
from torch import Tensor, nn

from ..support.oracle_nets import images_like

NAME = "single_deletion_rho"


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 3)).eval()


def test_it_is_scipy_s_correlation_of_sums_and_falls() -> None:
    model, images = net(), images_like(2, 3, (22, 30), seed=3)
    maps = torch.rand(2, 22, 30, generator=torch.Generator().manual_seed(0))
    result = evaluate_maps(model, images, maps, [0, 2], metrics=[NAME])
    for place, target in enumerate((0, 2)):
        falls, sums = [], []
        for top in range(4):
            for left in range(4):
                rows = slice(round(top * 22 / 4), round((top + 1) * 22 / 4))
                columns = slice(round(left * 30 / 4), round((left + 1) * 30 / 4))
                without = images[place : place + 1].clone()
                without[:, :, rows, columns] = 0
                with torch.no_grad():
                    falls.append(float((model(images[place : place + 1]) - model(without))[0, target]))
                sums.append(float(maps[place, rows, columns].sum()))
        expected = scipy.stats.spearmanr(sums, falls).statistic
        assert float(result.values[NAME][place]) == pytest.approx(expected, abs=1e-6)
    assert METRICS[NAME].forwards == 17


class Saturated(nn.Module):
    """The probability rounds to 1 with any cell removed; the logit does not."""

    def forward(self, images: Tensor) -> Tensor:
        total = images.sum((1, 2, 3))
        return torch.stack([200 + total, 0 * total], dim=1)


def test_it_reads_logits_where_probabilities_are_all_1() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    cells = cell_of_pixels((16, 16))
    mass = torch.stack([image[0].sum(0)[cells == cell].sum() for cell in range(16)])
    map_ = (mass / mass.max())[cells][None]
    assert float(evaluate_maps(Saturated(), image, map_, 0, metrics=[NAME]).values[NAME][0]) == pytest.approx(1)
    assert float(evaluate_maps(Saturated(), image, 1 - map_, 0, metrics=[NAME]).values[NAME][0]) == pytest.approx(-1)


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[1.0, 2.0]]).repeat(len(images), 1)


def test_falls_that_are_all_the_same_give_no_number() -> None:
    images, maps = torch.rand(1, 3, 16, 16), torch.rand(1, 16, 16)
    assert bool(evaluate_maps(Constant(), images, maps, 1, metrics=[NAME]).values[NAME].isnan())
    assert bool(evaluate_maps(net(), images, torch.full((1, 16, 16), 0.5), 1, metrics=[NAME]).values[NAME].isnan())


def test_cells_tile_any_size() -> None:
    for side in (4, 7, 224, 227):
        edges = cell_edges(side)
        assert edges[0] == 0
        assert edges[-1] == side
        assert max(edges[place + 1] - edges[place] for place in range(4)) <= side // 4 + 1
    assert torch.bincount(cell_of_pixels((7, 9)).flatten(), minlength=16).sum() == 63
