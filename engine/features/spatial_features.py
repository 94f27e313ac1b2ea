"""Spatial features of images: averages where a map looks and where it does not, and hypercolumns (all fine layers at every place)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FINEST_CELLS = 64
"""Most cells along a side of a hypercolumn's grid: of larger maps averages are taken."""
LAYERS = 3
"""Layers of a hypercolumn, the finest first."""


def attention_weighted(
    features: Float[Tensor, "image channel h w"], maps: Float[Tensor, "image height width"]
) -> Float[Tensor, "image feature"]:
    """Mean feature weighted by the map, and by its complement, one behind the other.

    Source: SLIM (ECCV 2024), AttributionScanner (TVCG 2025). A map of zeros gives plain means twice.

    Args:
        features: Of a convolutional layer.
        maps: Of the same images, in [0, 1], any size.
    """
    weights = F.interpolate(maps[:, None], features.shape[-2:], mode="area").to(features)
    peak = weights.amax(dim=(2, 3), keepdim=True)
    inside = torch.where(peak > 0, weights / peak.clamp(min=1e-12), 1.0)
    outside = torch.where(peak > 0, 1 - inside, 1.0)
    means = [(features * part).sum(dim=(2, 3)) / part.sum(dim=(2, 3)).clamp(min=1e-6) for part in (inside, outside)]
    return torch.cat(means, dim=1)


def hypercolumns(
    images: Float[Tensor, "image channel height width"], layers: Sequence[Float[Tensor, "image _channel _h _w"]]
) -> Float[Tensor, "image feature h w"]:
    """Pixels and the finest layers side by side on one grid: that of the finest layer, at most `FINEST_CELLS` a side.

    Source: Hariharan et al., Hypercolumns for object segmentation and fine-grained localization, CVPR 2015.

    Args:
        images: In network-input space.
        layers: Feature maps of the same images, low to high.
    """
    grid = tuple(min(side, FINEST_CELLS) for side in layers[0].shape[-2:])
    parts = [F.interpolate(images, grid, mode="area")]
    for maps in layers[:LAYERS]:
        finer = maps.shape[-2] > grid[0] or maps.shape[-1] > grid[1]
        parts.append(
            F.interpolate(maps, grid, mode="area")
            if finer
            else F.interpolate(maps, grid, mode="bilinear", align_corners=False)
        )
    return torch.cat(parts, dim=1)
