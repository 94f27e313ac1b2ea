"""From a layer's feature maps to attribution masks: selection (eqs. 6-8), upsampling and min-max (section 3 of the paper)."""

from __future__ import annotations

from functools import cache
from typing import Literal

from jaxtyping import Bool, Float

from ..lazy_torch import F, torch
from .fusion import otsu_thresholds

Beta = Literal["kept", "paper"]
GRID = 28
"""Side of the coarse grid on which masks are compared."""


def average_gradients(gradient: Float[torch.Tensor, "*batch height width"]) -> Float[torch.Tensor, "*batch"]:
    """alpha_k, eq. 6: the sum over positions of dPsi / dA_k."""
    return gradient.sum(dim=(-2, -1), dtype=torch.float64)


def above_share(
    varies: Bool[torch.Tensor, " channel"], alphas: Float[torch.Tensor, " channel"], mu: float, beta: Beta
) -> Bool[torch.Tensor, " channel"]:
    """Which feature maps become masks: alpha_k > mu * beta (eqs. 7, 8), strict, beta the largest alpha.

    A map that is the same everywhere has no min-max and would mask everything: it contributes nothing and is left out. It sets no beta
    either, unless `beta` is `paper`: what cannot be a mask does not decide which masks are kept.
    """
    deciding = alphas if beta == "paper" else torch.where(varies, alphas, -torch.inf)
    return (alphas > mu * deciding.max().clamp(min=torch.finfo(alphas.dtype).min)) & varies


def above_otsu_share(
    varies: Bool[torch.Tensor, " channel"], alphas: Float[torch.Tensor, " channel"]
) -> Bool[torch.Tensor, " channel"]:
    """Which feature maps become masks in Ada-SISE: those whose alpha is above Otsu's threshold over the positive alphas, divided by the largest; the largest alone where none
    is. Constant maps are left out before, since they cannot be masks."""
    positive = (alphas > 0) & varies
    if not bool(positive.any()):
        return positive
    shares = alphas / alphas[positive].max()
    above = positive & (shares > otsu_thresholds(shares[positive][None, None])[0])
    return above if bool(above.any()) else positive & (shares == 1)


def varying(maps: Float[torch.Tensor, "*batch height width"]) -> Bool[torch.Tensor, "*batch"]:
    """Which maps are not the same everywhere."""
    return maps.amax(dim=(-2, -1)) > maps.amin(dim=(-2, -1))


def upsample(maps: Float[torch.Tensor, "mask h w"], size: tuple[int, int]) -> Float[torch.Tensor, "mask height width"]:
    """Bilinear with half-pixel centres (`align_corners=False`)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def upsampled_sums(maps: Float[torch.Tensor, "mask h w"], size: tuple[int, int]) -> Float[torch.Tensor, " mask"]:
    """Sum over pixels of every upsampled map, without upsampling: it is a fixed linear functional of the map."""
    rows = axis_weights(maps.shape[1], size[0], maps.device)
    columns = axis_weights(maps.shape[2], size[1], maps.device)
    return torch.einsum("h,khw,w->k", rows, maps.double(), columns)


@cache
def axis_weights(native: int, full: int, device: torch.device) -> Float[torch.Tensor, " native"]:
    """How much every native position counts in the sum of the upsampled axis."""
    identity = torch.eye(native, dtype=torch.float64, device=device)
    if native == full:
        return identity.sum(dim=0)
    return F.interpolate(identity[:, None], size=full, mode="linear", align_corners=False).sum(dim=(1, 2))


def extremes(
    maps: Float[torch.Tensor, "mask height width"],
) -> tuple[Float[torch.Tensor, " mask"], Float[torch.Tensor, " mask"]]:
    """Minimum and maximum of every map."""
    flat = maps.flatten(1)
    return flat.amin(dim=1), flat.amax(dim=1)


def min_max(
    maps: Float[torch.Tensor, "mask height width"],
    low: Float[torch.Tensor, " mask"],
    high: Float[torch.Tensor, " mask"],
) -> Float[torch.Tensor, "mask height width"]:
    """Every map to [0, 1] over its own range; a constant map becomes zeros."""
    span = high - low
    scale = torch.where(span > 0, 1 / torch.where(span > 0, span, 1), 0)
    return (maps - low[:, None, None]) * scale[:, None, None]


def coarse(
    maps: Float[torch.Tensor, "mask h w"], low: Float[torch.Tensor, " mask"], high: Float[torch.Tensor, " mask"]
) -> Float[torch.Tensor, "mask pixel"]:
    """Attribution masks averaged to the coarse grid, in [0, 1], float64.

    Args:
        maps: Feature maps at their own resolution.
        low: Minimum of each map upsampled to the input's size.
        high: Its maximum.
    """
    span = (high - low).double()
    scale = torch.where(span > 0, 1 / torch.where(span > 0, span, 1), 0)
    return ((on_grid(maps) - low.double()[:, None]) * scale[:, None]).clamp(0, 1)


def on_grid(maps: Float[torch.Tensor, "mask h w"]) -> Float[torch.Tensor, "mask pixel"]:
    """Feature maps upsampled and averaged to the coarse grid, float64."""
    side = (max(maps.shape[1], GRID), max(maps.shape[2], GRID))
    return F.adaptive_avg_pool2d(upsample(maps, side)[:, None], GRID)[:, 0].double().flatten(1)
