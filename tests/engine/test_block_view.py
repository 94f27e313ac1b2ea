"""What led to a map: the same map as SISE gives, its blocks, and the masks that scored highest."""

from __future__ import annotations

import torch
from heatlas.engine.block_views import compute_block_views
from heatlas.engine.methods.sise import SISE
from torch import nn


def small_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    ).eval()  # fmt: skip


def test_views_are_those_of_the_explanation():
    sise, image = SISE(small_net(), batch_size=5), torch.rand(3, 16, 16)
    expected = sise(image[None], keep_layers=True)
    result, views = compute_block_views(sise, image, None, masks=3)
    assert result.map is not None
    assert expected.layer_maps is not None
    assert torch.equal(result.map, expected.maps[0])
    assert torch.equal(torch.stack([view.map for view in views]), expected.layer_maps[0])
    assert [view.kept for view in views] == expected.mask_counts[0].tolist()
    assert [view.channels for view in views] == [layer.channels for layer in sise.plan(image)]


def test_masks_are_the_highest_scored_and_leave_what_they_say():
    model = small_net()
    sise, image = SISE(model), torch.rand(3, 16, 16)
    result, views = compute_block_views(sise, image, 2, masks=4)
    assert result.target == 2
    for view in views:
        assert len(view.masks) == len(view.scores) == min(4, view.kept)
        assert (view.scores.diff() <= 0).all()
        assert view.masks.amin() >= 0
        assert view.masks.amax() <= 1
        with torch.no_grad():
            seen = model(image * view.masks[:, None]).softmax(dim=1)[:, 2]
        assert torch.allclose(seen, view.scores, atol=1e-5)


def test_no_views_where_there_is_no_map():
    sise = SISE(small_net())
    result, views = compute_block_views(sise, torch.full((3, 16, 16), torch.nan), None)
    assert result.status != "ok"
    assert views == []
    assert compute_block_views(sise, torch.rand(3, 16, 16), None)[1], "nothing of the failed image is left in the queue"
