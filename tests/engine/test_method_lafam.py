"""LaFAM: the mean map of a layer, by hand, and the same for every class."""

from __future__ import annotations

import torch
from heatlas.engine.methods.registry import bind_method
from torch import nn

from ..support.oracle_nets import images_like


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip


def test_it_is_the_mean_over_channels_over_its_range_then_enlarged() -> None:
    model, images = net(), images_like(2, 3, (16, 16), seed=3)
    result = bind_method("lafam", model, layer="4").explain(images)
    mean = model[:5](images).mean(1)
    for image in range(2):
        low, high = mean[image].min(), mean[image].max()
        expected = nn.functional.interpolate(
            ((mean[image] - low) / (high - low))[None, None], size=(16, 16), mode="bilinear", align_corners=False
        )[0, 0]
        torch.testing.assert_close(result.maps[image], expected, rtol=1e-4, atol=1e-5)


def test_it_is_the_same_for_every_class() -> None:
    model, images = net(), images_like(1, 3, (16, 16), seed=3)
    method = bind_method("lafam", model)
    assert torch.equal(method.explain(images, 0).maps, method.explain(images, 2).maps)
    assert method.explain(images, 0).n_backwards == [0]
