"""RISE, Score-CAM, Ada-SISE and SISE's options against slow copies of their equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from heatlas.engine.fill import baseline_of
from heatlas.engine.layers.blocks import block_layers
from heatlas.engine.layers.capture import capture_layers
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.methods.sise import SISE, AdaSISE
from heatlas.engine.metrics.ranking import spearman
from heatlas.engine.random import sample_generator
from heatlas.engine.scoring.confidence import SOFTMAX
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.sise.fusion import otsu_thresholds
from heatlas.engine.sise.masks import above_otsu_share, average_gradients, varying
from heatlas.errors import SettingsError
from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from skimage.filters import threshold_otsu
from torch import Tensor, nn

from ..support.oracle_nets import images_like, three_blocks

SIZE = (26, 30)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return three_blocks(2, size=SIZE).eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return images_like(1, 3, SIZE, seed=4)[0]


def probability(net: nn.Module, variants: Tensor, target: int) -> Tensor:
    with torch.no_grad():
        return net(variants).softmax(dim=1)[:, target].double()


def spread(values: Tensor) -> Tensor:
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("grid", [2, 4, 7])
def test_rise_is_its_equation(grid: int, net: nn.Module, image: Tensor) -> None:
    count, p = 37, 0.4
    result = bind_method("rise", net, scoring=Scoring(batch_size=8), masks=count, grid=grid, p=p, seed=3).explain(
        image[None], 2, seeds=[11]
    )
    generator = sample_generator(3, 11, "rise")
    cells = (torch.rand(count, grid, grid, generator=generator) < p).float()
    height, width = (-(-side // grid) for side in SIZE)
    down = torch.randint(height, (count,), generator=generator)
    across = torch.randint(width, (count,), generator=generator)
    large = F.interpolate(cells[:, None], ((grid + 1) * height, (grid + 1) * width), mode="bilinear")[:, 0]
    masks = torch.stack([
        entry[top : top + SIZE[0], left : left + SIZE[1]] for entry, top, left in zip(large, down, across, strict=True)
    ])  # fmt: skip
    scores = probability(net, image * masks[:, None], 2)
    expected = (scores[:, None, None] * masks).sum(dim=0) / (count * p)
    torch.testing.assert_close(result.maps[0], spread(expected).float(), rtol=1e-4, atol=1e-4)
    assert result.n_forwards == [1 + count]


def test_rise_masks_show_as_much_as_they_are_told(image: Tensor) -> None:
    class Mean(nn.Module):
        """Says how much of an image of ones is shown."""

        def __init__(self) -> None:
            super().__init__()
            self.shown: list[float] = []

        def forward(self, images: Tensor) -> Tensor:
            self.shown += images.mean(dim=(1, 2, 3)).tolist()
            return torch.stack([images.mean(dim=(1, 2, 3)), images.amax(dim=(1, 2, 3))], dim=1)

    for p in (0.2, 0.7):
        model = Mean()
        bind_method("rise", model, scoring=Scoring(batch_size=10), masks=500, p=p).explain(torch.ones(1, 3, *SIZE), 0)
        assert abs(float(np.mean(model.shown[1:501])) - p) < 0.02


@pytest.mark.parametrize("weights", ["softmax", "probability"])
def test_score_cam_is_its_algorithm(weights: str, net: nn.Module, image: Tensor) -> None:
    target = 3
    result = bind_method("score_cam", net, weights=weights).explain(image[None], target)
    plan = block_layers(net, image[None])
    maps = capture_layers(net, plan, image[None])[1][-1].detach()[0]
    assert plan[-1].channels == len(maps)
    scores, kept = [], []
    for entry in maps:
        full = F.interpolate(entry[None, None], SIZE, mode="bilinear", align_corners=False)[0, 0]
        if full.max() > full.min():
            with torch.no_grad():
                logits = net((image * spread(full))[None])[0].double()
            scores.append(logits[target] if weights == "softmax" else logits.softmax(dim=0)[target])
            kept.append(entry.double())
    alphas = torch.stack(scores)
    alphas = alphas.softmax(dim=0) if weights == "softmax" else alphas
    raw = (alphas[:, None, None] * torch.stack(kept)).sum(dim=0).relu()
    expected = F.interpolate(raw[None, None], SIZE, mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(result.maps[0], spread(expected).float(), rtol=1e-4, atol=1e-4)
    assert result.n_forwards == [1 + len(kept)]


def test_score_cam_ranks_pixels_as_pytorch_grad_cam(net: nn.Module, image: Tensor) -> None:
    layer = block_layers(net, image[None]).names[-1]
    with ScoreCAM(net, [net.get_submodule(layer)]) as cam:
        theirs = torch.from_numpy(cam(image[None], [ClassifierOutputTarget(3)])[0])
    ours = bind_method("score_cam", net, layer=layer).explain(image[None], 3).maps
    assert float(spearman(ours.flatten(1), theirs.flatten()[None])) > 0.95  # its masks are upsampled corner to corner


def test_ada_sise_keeps_what_is_above_otsus_threshold() -> None:
    torch.manual_seed(0)
    maps = torch.rand(200, 4, 4)
    for trial in range(20):
        alphas = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(trial))
        positive = alphas[alphas > 0] / alphas.max()
        expected = alphas / alphas.max() > threshold_otsu(positive.numpy())
        kept = above_otsu_share(varying(maps), alphas)
        assert torch.equal(kept, expected)
        assert 0.1 <= float(kept.sum() / (alphas > 0).sum()) <= 0.6


def test_ada_sise_keeps_the_largest_alone_where_none_is_above_and_no_constant_map() -> None:
    maps = torch.rand(4, 3, 3)
    assert above_otsu_share(varying(maps), torch.tensor([-1.0, 0.0, 0.5, -2.0])).tolist() == [False, False, True, False]
    assert above_otsu_share(varying(maps), torch.tensor([-1.0, 0.5, 0.5, -2.0])).tolist() == [False, True, True, False]
    assert not bool(above_otsu_share(varying(maps), torch.tensor([-1.0, 0.0, -0.5, -2.0])).any())
    maps[2] = 1.0
    assert above_otsu_share(varying(maps), torch.tensor([-1.0, 0.1, 0.5, -2.0])).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"baseline": True},
        {"fill": "mean"},
        {"fill": "blur", "baseline": True},
        {"gate": "soft"},
        pytest.param({"mu": None}, marks=pytest.mark.unchecked_types),
    ],
    ids=str,
)
def test_sise_with_options_is_its_equations(options: dict, net: nn.Module, image: Tensor) -> None:
    target = 1
    kind, more = (AdaSISE, {}) if "mu" in options else (SISE, {"mu": 0.2, **options})
    sise = kind(net, batch_size=8, **more)
    result = sise(image[None], [target], keep_layers=True)
    assert result.statuses == ["ok"]
    plan = sise.plan(image)
    logits, layers = capture_layers(net, plan, image[None])
    margin = SOFTMAX.margin(logits, torch.tensor([target])).sum()
    gradients = torch.autograd.grad(margin, layers)
    nothing = baseline_of(image[None], options.get("fill", "zero"))[0]
    shown = probability(net, nothing[None], target)[0] if options.get("baseline") else 0.0
    fused = None
    for place, (maps, gradient) in enumerate(zip(layers, gradients, strict=True)):
        alphas = average_gradients(gradient[0])
        chosen = (
            alphas > 0.2 * alphas.max() if sise.mu is not None else above_otsu_share(varying(maps[0].detach()), alphas)
        )
        total = torch.zeros(SIZE, dtype=torch.float64)
        count = 0
        for entry in maps[0].detach()[chosen]:
            if entry.max() == entry.min():
                continue
            mask = spread(F.interpolate(entry[None, None], SIZE, mode="bilinear", align_corners=False)[0, 0])
            score = probability(net, (image * mask + nothing * (1 - mask))[None], target)[0]
            total += (score - shown) * mask.double() / mask.double().sum()
            count += 1
        assert int(result.mask_counts[0, place]) == count
        layer = spread(total)
        assert result.layer_maps is not None
        torch.testing.assert_close(result.layer_maps[0, place].double(), layer, rtol=1e-3, atol=2e-4)
        layer = result.layer_maps[0, place].double()  # so that a pixel at the gate is on the same side
        if fused is None:
            fused = layer
            continue
        steps = layer - otsu_thresholds(result.layer_maps[0, place : place + 1])[0]
        gate = 1 / (1 + (-100 * steps).exp()) if options.get("gate") == "soft" else (steps > 0).double()
        fused = (fused + layer) * gate
    assert fused is not None
    torch.testing.assert_close(result.maps[0], (fused / len(plan)).float(), rtol=1e-3, atol=1e-3)


def test_the_baseline_costs_one_forward(net: nn.Module, image: Tensor) -> None:
    spent = []
    for baseline in (False, True):
        spent += SISE(net, batch_size=8, baseline=baseline).explain(image[None], 1).n_forwards
    assert spent[1] == spent[0] + 1


@pytest.mark.parametrize("options", [{"baseline": True}, {"gate": "soft"}])
def test_a_budget_that_would_predict_for_something_else_is_refused(options: dict, net: nn.Module) -> None:
    with pytest.raises(SettingsError, match="budget must be exact with a baseline or gate soft, got 'fast'"):
        SISE(net, budget="fast", **options)


@pytest.mark.unchecked_types
def test_a_budget_goes_with_ada_sise_and_a_fill(net: nn.Module, image: Tensor) -> None:
    for options in ({"mu": None}, {"fill": "blur"}):
        result = SISE(net, batch_size=8, budget=0.5, **options)(image[None], 1)
        assert result.statuses == ["ok"]
