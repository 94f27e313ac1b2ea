"""What stands for "nothing to see" where a method takes pixels away."""

from __future__ import annotations

from jaxtyping import Float

from .fill_kinds import Baseline
from .lazy_torch import F, torch

BLUR_SIGMA = 10.0
BLUR_SIDE = 41
"""A blur that leaves no object recognisable at 224 x 224; FovEx's periphery is the same."""


def baseline_of(
    images: Float[torch.Tensor, "batch channel height width"], kind: Baseline
) -> Float[torch.Tensor, "batch channel height width"]:
    """`zero` in network-input space (the mean colour of the training set), the image's own `mean` colour, or its `blur`."""
    if kind == "zero":
        return torch.zeros_like(images)
    if kind == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    return gaussian_blur(images, BLUR_SIGMA, BLUR_SIDE)


def gaussian_blur(
    images: Float[torch.Tensor, "batch channel height width"], sigma: float, side: int
) -> Float[torch.Tensor, "batch channel height width"]:
    """Convolve with a Gaussian of `side` x `side` pixels (odd), edges replicated."""
    reach = torch.arange(side, device=images.device, dtype=images.dtype) - side // 2
    weights = (-(reach**2) / (2 * sigma**2)).exp()
    channels = images.shape[1]
    weights = (weights / weights.sum()).expand(channels, 1, 1, side)
    half = side // 2
    padded = F.pad(images, (half, half, half, half), mode="replicate")
    with torch.autocast(images.device.type, enabled=False):  # the model's precision is not the image's
        rows = F.conv2d(padded, weights, groups=channels)
        return F.conv2d(rows, weights.transpose(2, 3), groups=channels)
