"""Winsor-CAM: weights by hand, Grad-CAM where there is one layer, and the layers that it reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.engine.methods.cams import GradCAM
from heatlas.engine.methods.winsor_cam import WinsorCAM, wide_convolutions, winsorised
from heatlas.errors import NoBlocksError, SettingsError
from torch import nn
from torchvision.models import VisionTransformer, mobilenet_v3_small

from ..support.oracle_nets import images_like


def net() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    nn.init.normal_(model[-1].weight)
    return model.eval()


@pytest.mark.parametrize("percentile", [0, 40, 90, 100])
def test_weights_are_winsorised_and_stretched(percentile: float) -> None:
    values = np.array([0.0, 0.5, 2.0, 9.0, 1.0])
    positive = values[values > 0]
    kept = np.minimum(positive, np.percentile(positive, percentile))
    expected = np.zeros(5)
    if percentile == 0:
        expected[values > 0] = 1
    else:
        expected[values > 0] = 0.1 + 0.9 * (kept - kept.min()) / (kept.max() - kept.min())
    torch.testing.assert_close(winsorised(torch.tensor(values)[None], percentile)[0], torch.tensor(expected))


def test_layers_alike_count_alike_and_none_counts_without_importance() -> None:
    assert winsorised(torch.tensor([[3.0, 3.0, 0.0]]), 90).tolist() == [[1, 1, 0]]
    assert winsorised(torch.zeros(1, 3), 90).tolist() == [[0, 0, 0]]
    assert bool(winsorised(torch.full((1, 2), torch.nan), 90).isnan().any())


def test_of_one_layer_it_is_grad_cam_min_maxed() -> None:
    model, images = net(), images_like(2, 3, (16, 16), seed=3)
    result = WinsorCAM(model, layers=("3",))
    for target in range(3):
        cam = GradCAM(model, layer="3").explain(images, target).maps
        low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
        ours = result.explain(images, target)
        important = result.gradients(images)(images, torch.tensor([target] * 2))[1][0].gradients.mean((1, 2, 3)) > 0
        for place in range(2):
            expected = (cam - low)[place] / (high - low)[place].clamp(min=1e-12) if important[place] else 0 * cam[place]
            torch.testing.assert_close(ours.maps[place], expected, rtol=1e-3, atol=1e-4)


def test_every_layer_s_cam_is_added_by_its_weight() -> None:
    model, images = net(), images_like(1, 3, (16, 16), seed=5)
    method = WinsorCAM(model)
    _, layers = method.gradients(images)(images, torch.tensor([1]))
    weights = winsorised(torch.stack([each.gradients.mean((1, 2, 3)).double() for each in layers], 1).relu(), 90)[0]
    total = torch.zeros(16, 16, dtype=torch.float64)
    for weight, layer in zip(weights, layers, strict=True):
        cam = (layer.gradients.mean((2, 3), keepdim=True) * layer.maps).sum(1).relu().double()
        cam = (cam - cam.min()) / (cam.max() - cam.min()).clamp(min=1e-12)
        total += weight * nn.functional.interpolate(cam[None], size=(16, 16), mode="bilinear")[0, 0]
    expected = ((total - total.min()) / (total.max() - total.min())).float()
    torch.testing.assert_close(method.explain(images, 1).maps[0], expected, rtol=1e-3, atol=1e-4)


def test_convolutions_of_one_cell_are_left_out() -> None:
    names = wide_convolutions(mobilenet_v3_small().eval(), torch.rand(1, 3, 64, 64))
    assert names
    assert not any("fc1" in name or "fc2" in name for name in names)


def test_a_percentile_out_of_range_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"percentile must be in \[0, 100\], got 101"):
        WinsorCAM(net(), percentile=101)


def test_a_transformer_s_patches_are_no_layers_of_a_cam() -> None:
    transformer = VisionTransformer(24, 8, 2, 2, 16, 32, num_classes=3).eval()
    with pytest.raises(NoBlocksError, match="no spatial hierarchy"):
        WinsorCAM(transformer).explain(images_like(1, 3, (24, 24), seed=1), 0)
