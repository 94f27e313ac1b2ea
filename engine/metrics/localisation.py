"""Does the map lie on the object? Not defined for an image whose ground truth is empty."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .metric import Evidence, metric
from .ranking import top_pixels, top_share

SISE_PAPER = "Sattarzadeh et al., AAAI 2021, table 1"


@metric(version=1, unit="share of mass", range=(0, 1), better="higher", needs="truth", source=SISE_PAPER)
def ebpg(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Sum of S inside the ground truth / sum of S, unthresholded (energy-based pointing game)."""
    truth = present(evidence)
    inside = (evidence.maps * truth).sum(dim=(1, 2), dtype=torch.float64)
    total = evidence.maps.sum(dim=(1, 2), dtype=torch.float64)
    return torch.where(total > 0, inside / total, torch.nan).where(truth.any(dim=2).any(dim=1), torch.nan)


@metric(version=1, unit="share of pixels", range=(0, 1), better="higher", needs="truth", source=SISE_PAPER)
def miou(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Intersection over union of the top 20 % pixels with the ground truth."""
    truth = present(evidence)
    top = top_share(evidence.order, 0.2, (truth.shape[1], truth.shape[2]))
    shared, joint = (top & truth).sum(dim=(1, 2)), (top | truth).sum(dim=(1, 2))
    return (shared / joint).double().where(truth.any(dim=2).any(dim=1), torch.nan)


@metric(version=1, unit="share of pixels", range=(0, 1), better="higher", needs="truth", source=SISE_PAPER)
def bbox(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Share of the top N pixels that lie inside the ground truth, N the number of ground-truth pixels."""
    truth = present(evidence)
    count = truth.sum(dim=(1, 2))
    top = top_pixels(evidence.order, count, (truth.shape[1], truth.shape[2]))
    return torch.where(count > 0, (top & truth).sum(dim=(1, 2)).double() / count.clamp(min=1), torch.nan)


def present(evidence: Evidence) -> Bool[Tensor, "batch height width"]:
    """The ground truth, which the caller made sure is there.

    Raises:
        ValueError: When it is not.
    """
    if evidence.truth is None:
        raise ValueError("a localisation metric was asked for without ground truth")
    return evidence.truth
