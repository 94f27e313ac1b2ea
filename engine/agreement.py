"""How far two maps of one image agree: in rank, in their strongest region, and in how far mass must be moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .lazy_torch import F, torch
from .metrics.ranking import spearman

STRONGEST_SHARE = 0.2
CHANCE_IOU = STRONGEST_SHARE / (2 - STRONGEST_SHARE)
"""Of the strongest pixels of two maps that have nothing to do with each other, as many as are expected: 0.111."""
CELLS = 8


@dataclass(frozen=True)
class MapAgreement:
    """NaN where a map is the same everywhere or not finite."""

    spearman: float
    """Rank correlation of the pixels, in [-1, 1]."""
    iou: float
    """Of the strongest 20 % of the pixels, in [0, 1]."""
    wasserstein: float
    """Least mean distance over which the mass of one map must be moved to make the other, in sides of the image, in [0, 1.41]; 8x8 cells."""


def agreement_of(
    first: Float[torch.Tensor, "height width"], second: Float[torch.Tensor, "height width"]
) -> MapAgreement:
    """Compare two maps with values in [0, 1]."""
    flat = [image_map.flatten()[None].double() for image_map in (first, second)]
    if any(not bool(values.isfinite().all()) or float(values.max()) <= float(values.min()) for values in flat):
        return MapAgreement(float("nan"), float("nan"), float("nan"))
    return MapAgreement(float(spearman(*flat)), strongest_iou(first, second), wasserstein_distance(first, second))


def strongest_iou(first: Float[torch.Tensor, "height width"], second: Float[torch.Tensor, "height width"]) -> float:
    """IoU of the strongest 20 % of the pixels, in [0, 1]; ties in row-major order."""
    count = max(1, round(STRONGEST_SHARE * first.numel()))
    chosen = [
        set(image_map.flatten().argsort(descending=True, stable=True)[:count].tolist()) for image_map in (first, second)
    ]
    return len(chosen[0] & chosen[1]) / len(chosen[0] | chosen[1])


def wasserstein_distance(
    first: Float[torch.Tensor, "height width"], second: Float[torch.Tensor, "height width"]
) -> float:
    """1-Wasserstein distance of the maps as distributions over 8x8 cells of an image with sides of 1; each must have mass."""
    from scipy.stats import wasserstein_distance_nd  # here, because importing it takes a second

    weights = [
        F.adaptive_avg_pool2d(image_map[None, None].double(), CELLS)[0, 0].flatten().cpu().numpy()
        for image_map in (first, second)
    ]
    axis = (np.arange(CELLS) + 0.5) / CELLS
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return float(wasserstein_distance_nd(places, places, *weights))
