"""sise_plus: the line by NumPy, SISE's map where it finds nothing, and the eq. 12 sum with its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.methods.sise_plus import SISEPlus, above_line
from heatlas.engine.sise.fusion import fuse
from heatlas.engine.sise.masks import extremes, min_max, upsample
from heatlas.errors import SettingsError
from torch import nn

from ..support.oracle_nets import images_like


def net() -> nn.Sequential:
    torch.manual_seed(3)
    blocks: list[nn.Module] = []
    for before, after in ((3, 8), (8, 10)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4)).eval()
    nn.init.normal_(model[-1].weight)  # pyright: ignore[reportArgumentType]
    return model


def test_weights_are_what_is_above_numpy_s_line() -> None:
    draw = np.random.default_rng(0)
    areas, scores = draw.uniform(0.1, 0.9, 20), draw.uniform(0, 1, 20)
    expected = np.maximum(scores - np.polyval(np.polyfit(areas, scores, 1), areas), 0)
    torch.testing.assert_close(above_line(torch.tensor(areas), torch.tensor(scores)), torch.tensor(expected))


def test_scores_stay_where_nothing_is_above_the_line() -> None:
    areas = torch.tensor([0.1, 0.4, 0.7, 0.8], dtype=torch.float64)
    for scores in (0.2 + 0.5 * areas, torch.full((4,), 0.3, dtype=torch.float64)):
        assert torch.equal(above_line(areas, scores), scores)
    two = torch.tensor([0.2, 0.9], dtype=torch.float64)
    assert torch.equal(above_line(areas[:2], two), two)
    same_area = above_line(torch.full((4,), 0.5, dtype=torch.float64), areas)
    torch.testing.assert_close(same_area, (areas - areas.mean()).clamp(min=0))


def test_the_map_is_sise_s_with_these_weights() -> None:
    model, image = net(), images_like(1, 3, (24, 24), seed=1)[0]
    logits, layers = SISE(model).layer_masks(image, 1)
    assert logits.target == 1
    raw = []
    for layer in layers:
        full = upsample(layer.maps, (24, 24))
        masks = min_max(full, *extremes(full))
        with torch.no_grad():
            scores = model(image * masks[:, None]).softmax(1)[:, 1]
        weights = above_line(masks.mean((1, 2)).double(), scores.double())
        total = torch.zeros(24, 24, dtype=torch.float64)
        for weight, mask in zip(weights, masks, strict=True):
            total += weight * mask.double() / mask.double().sum()
        raw.append(total)
    stacked = torch.stack(raw)
    expected = fuse(min_max(stacked, *extremes(stacked))) / len(raw)
    result = SISEPlus(model).explain(image[None], 1)
    plain = SISE(model).explain(image[None], 1)
    torch.testing.assert_close(result.maps[0], expected.float(), rtol=1e-3, atol=1e-3)
    assert result.n_forwards == plain.n_forwards
    assert not torch.allclose(result.maps, plain.maps, atol=1e-3)


def test_it_leaves_no_masks_out() -> None:
    with pytest.raises(SettingsError, match="method sise_plus leaves no masks out, so budget must be exact"):
        SISEPlus(net(), budget="fast")
