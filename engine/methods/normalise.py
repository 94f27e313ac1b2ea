"""From a method's raw values to maps in [0, 1] at the input's size, each image on its own. NaN stays NaN."""

from __future__ import annotations

from jaxtyping import Float

from ..lazy_torch import F, torch


def upsampled(
    maps: Float[torch.Tensor, "batch h w"], size: tuple[int, int]
) -> Float[torch.Tensor, "batch height width"]:
    """Bilinear with half-pixel centres (`align_corners=False`)."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def over_max(maps: Float[torch.Tensor, "batch height width"]) -> Float[torch.Tensor, "batch height width"]:
    """Non-negative maps over their own maxima; a map of zeros stays one."""
    high = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(high == 0, 1, high)


def spread(maps: Float[torch.Tensor, "batch height width"]) -> Float[torch.Tensor, "batch height width"]:
    """Every map to [0, 1] over its own range; a constant map becomes zeros."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / torch.where(high == low, 1, high - low)


def positive_part(
    maps: Float[torch.Tensor, "batch h w"], size: tuple[int, int]
) -> Float[torch.Tensor, "batch height width"]:
    """What speaks for the target: the positive part, upsampled, over its maximum; float32."""
    return over_max(upsampled(maps.relu(), size)).float()
