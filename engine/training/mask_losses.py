"""What teaches an attention head without labels: the masked image keeps its class, and the mask is small and smooth (T-TAME, P-TAME)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...errors import SettingsError
from ..fill import gaussian_blur

AREA_OFFSET = 5e-4
"""Keeps the slope of the area's power finite at 0."""
PAPER_BATCH = 32
"""The paper sums the variation over batch x batch maps and divides by twice the batch: this batch gives its loss weight a meaning."""
BLUR_SIDE = 55
BLUR_SIGMA = 8.6
"""OpenCV's sigma for a kernel of that side: 0.3 * ((side - 1) / 2 - 1) + 0.8."""
Fill = Literal["black", "blur", "mean"]


@dataclass(frozen=True)
class MaskLossWeights:
    """Weights of the three terms and shape of two of them.

    Raises:
        SettingsError: When a value is out of its range.
    """

    cross_entropy: float = 1.5
    area: float = 2.0
    variation: float = 0.01
    power: float = 0.3
    """Of the area, above 0."""
    border: float = 0.3
    """What a mask's outermost cells add to the variation, at least 0."""

    def __post_init__(self) -> None:
        for name in ("cross_entropy", "area", "variation", "border"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.power > 0:
            raise SettingsError(f"power must be above 0, got {self.power}")


@dataclass(frozen=True, eq=False)
class MaskLoss:
    """The loss of a batch and its terms, unweighted; scalars."""

    total: Tensor
    cross_entropy: Tensor
    area: Tensor
    variation: Tensor


def area_loss(masks: Float[Tensor, "*batch h w"], power: float) -> Tensor:
    """mean (a + 5e-4)^power over all cells of all masks, masks in [0, 1]."""
    return (masks + AREA_OFFSET).pow(power).mean()


def variation_loss(masks: Float[Tensor, "*batch h w"], border: float) -> Tensor:
    """Squared differences of neighbours, and `border` times the squares of the outermost cells: summed by mask, mean over masks, times 16.

    The factor, half of the paper's batch of 32, makes it the paper's sum / (2 batch) over batch x batch masks at that batch size, and the
    same at any other. The border is read as each outermost cell once.
    """
    down, across = masks.diff(dim=-2).square().sum(dim=(-2, -1)), masks.diff(dim=-1).square().sum(dim=(-2, -1))
    squares = masks.square()
    edge = squares.sum(dim=(-2, -1)) - squares[..., 1:-1, 1:-1].sum(dim=(-2, -1))
    return PAPER_BATCH / 2 * (down + across + border * edge).mean()


def mask_loss(
    own: Float[Tensor, "batch h w"],
    crossed: Float[Tensor, "batch target h w"],
    masked_logits: Float[Tensor, "batch class"],
    targets: Int[Tensor, " batch"],
    weights: MaskLossWeights,
    seen: Bool[Tensor, " batch"] | None = None,
) -> MaskLoss:
    """The loss of one batch.

    Args:
        own: Each image's mask for its own class, in [0, 1]; what `masked_logits` were made with.
        crossed: Every image's masks for all classes of the batch: area and variation count these.
        masked_logits: The classifier's output for the masked images.
        targets: The class that the classifier gives each whole image.
        weights: Of the terms.
        seen: Where classes do not exclude each other [ours]: whether the classifier sees the target in the whole image, which is kept by binary
            cross-entropy of the target's own logit. None: cross-entropy over all classes.
    """
    if own.shape[1:] != crossed.shape[2:]:
        raise SettingsError(f"own and crossed masks must have one size, got {own.shape[1:]} and {crossed.shape[2:]}")
    wide = masked_logits.float()
    if seen is None:
        entropy = F.cross_entropy(wide, targets)
    else:
        entropy = F.binary_cross_entropy_with_logits(wide.gather(1, targets[:, None]).squeeze(1), seen.float())
    area, variation = area_loss(crossed, weights.power), variation_loss(crossed, weights.border)
    total = weights.cross_entropy * entropy + weights.area * area + weights.variation * variation
    return MaskLoss(total, entropy.detach(), area.detach(), variation.detach())


def masked_images(
    images: Float[Tensor, "batch channel height width"],
    masks: Float[Tensor, "batch h w"],
    fill: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, "batch channel height width"]:
    """fill + m (x - fill), m the mask upsampled bilinearly to the image."""
    size = (images.shape[2], images.shape[3])
    upsampled = F.interpolate(masks[:, None], size=size, mode="bilinear", align_corners=False)
    return fill + upsampled * (images - fill)


def fill_of(
    images: Float[Tensor, "batch channel height width"], kind: Fill, black: Float[Tensor, " channel"]
) -> Float[Tensor, "batch channel height width"]:
    """What a mask of 0 leaves.

    Args:
        images: Network input.
        kind: `black` (the paper's), the image's own `mean` colour, or its `blur` (a Gaussian of 55 x 55 pixels).
        black: A black pixel as network input, (0 - mean) / std.
    """
    if kind == "black":
        return black.to(images)[None, :, None, None].expand_as(images)
    if kind == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    if kind == "blur":
        side = min(BLUR_SIDE, 2 * (min(images.shape[2:]) // 2) - 1)
        return gaussian_blur(images, BLUR_SIGMA, max(side, 1))
    raise SettingsError(f"fill must be black, blur or mean, got {kind!r}")


def imitation_loss(
    logit_maps: Float[Tensor, "batch h w"], teacher: Float[Tensor, "batch height width"]
) -> Float[Tensor, ""]:
    """What teaches a student of another method's maps [ours]: binary cross-entropy with the teacher's values, and 1 - Pearson's correlation.

    Args:
        logit_maps: Before the sigmoid; upsampled bilinearly to the teacher's size.
        teacher: Maps in [0, 1].
    """
    logits = F.interpolate(logit_maps[:, None], size=teacher.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    entropy = F.binary_cross_entropy_with_logits(logits, teacher)
    return entropy + (1 - pearson(logits.sigmoid(), teacher)).mean()


def pearson(first: Float[Tensor, "batch h w"], second: Float[Tensor, "batch h w"]) -> Float[Tensor, " batch"]:
    """Correlation over the pixels of each pair; 0 where a map is constant."""
    centred, others = (maps.flatten(1) - maps.flatten(1).mean(dim=1, keepdim=True) for maps in (first, second))
    scale = centred.norm(dim=1) * others.norm(dim=1)
    return (centred * others).sum(dim=1) / torch.where(scale == 0, 1, scale)
