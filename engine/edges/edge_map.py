"""Edge strength of images by source: `sobel`, `canny`, or HED with the user's weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .canny import canny_edges
from .hed import load_hed
from .luma import luma_of

SCHARR = ((-3.0, 0.0, 3.0), (-10.0, 0.0, 10.0), (-3.0, 0.0, 3.0))
STRONG = 0.99
"""Quantile of the strength that becomes 1."""
LEAST_STRENGTH = 1e-4
"""Below, an image is flat: rounding is no edge."""
EdgeSource = Callable[[Float[Tensor, "batch 3 height width"]], Float[Tensor, "batch height width"]]


def scharr_edges(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
    """Magnitude of the luma's gradient (3 x 3 Scharr), over its 99th percentile and clipped to [0, 1]; zeros for a flat image.

    Args:
        images: RGB in [0, 1].
    """
    luma = luma_of(images)[:, None]
    kernel = torch.tensor(SCHARR, device=images.device, dtype=images.dtype) / 32
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    slopes = F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])
    strength = slopes.square().sum(dim=1).sqrt()
    high = strength.flatten(1).quantile(STRONG, dim=1)[:, None, None]
    most = strength.amax(dim=(1, 2), keepdim=True)
    high = torch.where(high < LEAST_STRENGTH, most, high)  # fewer edges than 1 % of the pixels
    flat = most < LEAST_STRENGTH
    return torch.where(flat, 0 * strength, strength / torch.where(flat, 1, high)).clamp(max=1)


@cache
def hed_edges(path: str) -> EdgeSource:
    """HED with the weights of a file, read once per process.

    Raises:
        ModelError: When they cannot be read.
    """
    network = load_hed(path)

    def strength(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
        network.to(images.device)
        with torch.no_grad():
            return network(images.float())

    return strength


NAMED: dict[str, EdgeSource] = {"sobel": scharr_edges, "canny": canny_edges}
"""Sources that need no file."""
