"""Baselines of a layer's feature maps: five families of "nothing to see", drawn anew for each image (BEE's).

The normal and uniform families mix the maps with noise as a diffusion model does after 500 steps, which leaves next to nothing of
them, and are then stretched over each channel's own range.
"""

from __future__ import annotations

from functools import cache

from jaxtyping import Float

from ..lazy_torch import torch

FAMILIES = ("normal", "uniform", "blur", "constant", "train")
DIFFUSION_STEPS = 500
DIFFUSION_BETAS = (1e-4, 0.02)
"""First and last of the linear schedule."""
BLUR_SIGMAS_PX = (3, 50)
"""Least and largest, in pixels of the input."""


@cache
def kept_share() -> float:
    """The square of the maps' coefficient in a mix with noise: the product of 1 - beta over the schedule, 0.0063."""
    return float((1 - torch.linspace(*DIFFUSION_BETAS, DIFFUSION_STEPS, dtype=torch.float64)).prod())


def draw_baseline(
    family: str,
    maps: Float[torch.Tensor, "channel h w"],
    height_px: int,
    generator: torch.Generator,
    stored: Float[torch.Tensor, "row channel h w"] | None = None,
) -> Float[torch.Tensor, "channel h w"]:
    """One baseline of a layer's maps.

    Args:
        family: One of `FAMILIES`.
        maps: The image's activations.
        height_px: The input's height, of which the blur's sigma is a number of pixels.
        generator: The image's own, on the CPU.
        stored: Activations of other images, for `train`.

    Raises:
        ValueError: For `train` without `stored`.
    """
    if family == "normal":
        return mixed(maps, torch.randn(maps.shape, generator=generator))
    if family == "uniform":
        return mixed(maps, 2 * torch.rand(maps.shape, generator=generator) - 1)
    if family == "blur":
        low, high = BLUR_SIGMAS_PX
        sigma_px = int(torch.randint(low, high + 1, (), generator=generator))
        return blurred(maps, sigma_px * maps.shape[1] / height_px)
    if family == "constant":
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        share = torch.rand(len(maps), 1, 1, generator=generator).to(maps)
        return (low + share * (high - low)).expand_as(maps)
    if stored is None:
        raise ValueError("the family train draws among stored activations, and there are none")
    return stored[int(torch.randint(len(stored), (), generator=generator))].to(maps)


def mixed(
    maps: Float[torch.Tensor, "channel h w"], noise: Float[torch.Tensor, "channel h w"]
) -> Float[torch.Tensor, "channel h w"]:
    """sqrt(a) h + sqrt(1 - a) noise, stretched over each channel's range in h."""
    share = kept_share()
    mix = share**0.5 * maps + (1 - share) ** 0.5 * noise.to(maps)
    low, high = mix.amin(dim=(1, 2), keepdim=True), mix.amax(dim=(1, 2), keepdim=True)
    least, most = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return least + (mix - low) / torch.where(high == low, 1, high - low) * (most - least)


def blurred(maps: Float[torch.Tensor, "channel h w"], sigma: float) -> Float[torch.Tensor, "channel h w"]:
    """A Gaussian of `sigma` cells, at most as many as there are, its weights made to add up to 1 at the edges."""
    down, across = (gaussian_rows(side, min(sigma, side)).to(maps) for side in maps.shape[1:])
    return down @ maps @ across.T


def gaussian_rows(side: int, sigma: float) -> Float[torch.Tensor, "side side"]:
    """Weights of every cell for every cell; each row adds up to 1."""
    reach = torch.arange(side, dtype=torch.float64)
    weights = (-((reach[:, None] - reach) ** 2) / (2 * max(sigma, 1e-6) ** 2)).exp()
    return weights / weights.sum(dim=1, keepdim=True)
