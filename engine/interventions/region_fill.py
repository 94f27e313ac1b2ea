"""Remove a region of images, or paste it into others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..fill import BLUR_SIDE, BLUR_SIGMA, gaussian_blur
from ..metrics.imputation import impute

FillName = Literal["surround", "mean", "blur", "impute"]
FILL_TEXTS: dict[FillName, str] = {
    "surround": "what surrounds the region, smoothly continued (pull-push)",
    "mean": "the mean colour of the rest of the image",
    "blur": f"the image blurred (sigma {BLUR_SIGMA:g} px), the region's own colours among it",
    "impute": "linear imputation from the region's edge (as ROAD, without noise)",
}
Images = Float[Tensor, "image channel height width"]
Regions = Bool[Tensor, "image height width"]
RegionFill = FillName | Callable[[Images, Regions], Images]
"""A name, or a function of images and regions that gives the images with the regions filled."""
FEATHER_PIXELS = 1.0
"""Sigma of the soft edge around what is pasted."""


def fill_regions(images: Images, regions: Regions, fill: RegionFill = "surround") -> Images:
    """The images with their regions replaced; the rest stays as it is, to the bit.

    Args:
        images: In network-input space.
        regions: One per image; where a region covers its whole image there is nothing to fill from, and 0 is taken.
        fill: One of `FILL_TEXTS`, or a function.

    Raises:
        ValueError: When a function returns another shape.
    """
    if fill == "surround":
        filled = pulled_and_pushed(images, ~regions[:, None])
    elif fill == "mean":
        filled = outside_mean(images, regions).expand_as(images)
    elif fill == "blur":
        filled = gaussian_blur(images, BLUR_SIGMA, BLUR_SIDE)
    elif fill == "impute":
        filled = torch.where(regions.flatten(1).all(dim=1)[:, None, None, None], 0, impute(images, regions)[0])
    elif callable(fill):
        filled = fill(images, regions)
        if filled.shape != images.shape:
            raise ValueError(f"a fill must return images of shape {tuple(images.shape)}, got {tuple(filled.shape)}")
    else:
        raise ValueError(f"fill must be one of {', '.join(FILL_TEXTS)} or a function, got {fill!r}")
    return torch.where(regions[:, None], filled, images)


def outside_mean(images: Images, regions: Regions) -> Float[Tensor, "image channel 1 1"]:
    """Mean of each channel outside the region; 0 where there is no outside."""
    kept = (~regions[:, None]).to(images)
    return (images * kept).sum(dim=(2, 3), keepdim=True) / kept.sum(dim=(2, 3), keepdim=True).clamp(min=1)


def pulled_and_pushed(images: Images, known: Bool[Tensor, "image 1 height width"]) -> Images:
    """Unknown pixels from known ones nearby: halve the image until every pixel is known, then enlarge it into the holes.

    Source: Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4. Its cost does not depend on how large the holes are.
    """
    height, width = images.shape[-2:]
    weight = known.to(images)
    if bool(known.all()):
        return images
    if height == 1 and width == 1:
        return torch.where(known, images, 0)
    sums, shares = (
        F.avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in (images * weight, weight)
    )
    means = torch.where(shares > 0, sums / shares.clamp(min=1e-12), 0)
    coarse = pulled_and_pushed(means, shares > 0)
    enlarged = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return torch.where(known, images, enlarged)


def paste_region(
    receivers: Images,
    donor: Float[Tensor, "channel height width"],
    region: Bool[Tensor, "height width"],
    moves: Int[Tensor, "image 2"] | None = None,
    feather: float = FEATHER_PIXELS,
) -> Images:
    """The receivers with the donor's region pasted over them.

    Args:
        receivers: In network-input space, of the donor's size.
        donor: Where the region is taken from.
        region: In the donor.
        moves: How far (down, right) the region is moved for each receiver, in pixels; what leaves at an edge is lost. None for not
            at all.
        feather: Sigma in pixels of a soft edge outside the region, in which the donor fades out; 0 for a hard edge.
    """
    alpha = region.to(donor)[None, None]
    if feather > 0:
        side = 2 * int(3 * feather + 0.5) + 1
        alpha = torch.maximum(alpha, gaussian_blur(alpha, feather, side))
    patch = torch.cat([alpha[0], donor])
    if moves is None:
        moved = patch.expand(len(receivers), *patch.shape)
    else:
        moved = torch.stack([moved_by(patch, int(down), int(right)) for down, right in moves])
    alphas, donors = moved[:, :1], moved[:, 1:]
    return receivers + alphas * (donors - receivers)


def moved_by(
    values: Float[Tensor, "channel height width"], down: int, right: int
) -> Float[Tensor, "channel height width"]:
    """The values moved, 0 where nothing came."""
    height, width = values.shape[-2:]
    result = torch.zeros_like(values)
    if abs(down) < height and abs(right) < width:
        result[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = values[
            :, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
        ]
    return result
