"""Does the map lie on the object? Not defined for an image whose ground truth is empty."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .protocol import Evidence, metric, only_where, varies
from .ranking import top_pixels, top_share

SISE_PAPER = "Sattarzadeh et al., AAAI 2021, table 1"
XEDGEAI = "Nguyen et al., XEdgeAI, Information Fusion 2025, arXiv 2407.11771"
TOLERANCE = 15
"""Pixels by which a maximum may miss the ground truth, exclusive."""


@metric(version=1, unit="share of mass", range=(0.0, 1.0), better="higher", needs="truth", source=SISE_PAPER)
def ebpg(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Sum of S inside the ground truth / sum of S, unthresholded (energy-based pointing game)."""
    truth = present(evidence)
    inside = (evidence.maps * truth).sum(dim=(1, 2), dtype=torch.float64)
    total = evidence.maps.sum(dim=(1, 2), dtype=torch.float64)
    return torch.where(total > 0, inside / total, torch.nan).where(truth.any(dim=2).any(dim=1), torch.nan)


@metric(version=1, unit="share of pixels", range=(0.0, 1.0), better="higher", needs="truth", source=SISE_PAPER)
def miou(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Intersection over union of the top 20 % pixels with the ground truth."""
    truth = present(evidence)
    top = top_share(evidence.order, 0.2, (truth.shape[1], truth.shape[2]))
    shared, joint = (top & truth).sum(dim=(1, 2)), (top | truth).sum(dim=(1, 2))
    return (shared / joint).double().where(truth.any(dim=2).any(dim=1), torch.nan)


@metric(version=1, unit="share of pixels", range=(0.0, 1.0), better="higher", needs="truth", source=SISE_PAPER)
def bbox(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Share of the top N pixels that lie inside the ground truth, N the number of ground-truth pixels."""
    truth = present(evidence)
    count = truth.sum(dim=(1, 2))
    top = top_pixels(evidence.order, count, (truth.shape[1], truth.shape[2]))
    return torch.where(count > 0, (top & truth).sum(dim=(1, 2)).double() / count.clamp(min=1), torch.nan)


@metric(version=1, unit="share of pixels", range=(0.0, 1.0), better="higher", needs="truth", source=XEDGEAI)
def iou_half(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Intersection over union of the pixels with S >= max(S) / 2 with the ground truth. Not defined for a map that is the same everywhere."""
    truth = present(evidence)
    return only_where(varies(evidence.maps) & truth.flatten(1).any(dim=1), overlap(half_of(evidence.maps), truth))


@metric(version=1, unit="share of pixels", range=(0.0, 1.0), better="higher", needs="truth", source=XEDGEAI)
def bbox_iou_half(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Intersection over union of the tightest box around the pixels with S >= max(S) / 2 with the tightest box around the ground truth.

    Not defined for a map that is the same everywhere.
    """
    truth = present(evidence)
    boxes = boxed(half_of(evidence.maps)), boxed(truth)
    return only_where(varies(evidence.maps) & truth.flatten(1).any(dim=1), overlap(*boxes))


@metric(
    version=1, unit="share of maxima", range=(0.0, 1.0), better="higher", needs="truth",
    source="Zhang et al., IJCV 2018 (pointing game), as TorchRay computes it",
)  # fmt: skip
def pointing_hit(evidence: Evidence) -> Float[Tensor, " batch"]:
    """1 if a ground-truth pixel lies within 15 px of the map's maximum (squared distance < 15^2) else 0; tied maxima share.

    Of several equal maxima the share that hits counts. Not defined for a map that is the same everywhere.
    """
    truth = present(evidence)
    peaks = evidence.maps == evidence.maps.amax(dim=(1, 2), keepdim=True)
    hits = (peaks & near(truth)).sum(dim=(1, 2)).double() / peaks.sum(dim=(1, 2))
    return only_where(varies(evidence.maps) & truth.flatten(1).any(dim=1), hits)


@metric(
    version=1, unit="share of pixels", range=(0.0, 1.0), better="higher", needs="truth",
    source="Arras et al., Information Fusion 2022 (CLEVR-XAI)",
)  # fmt: skip
def relevance_rank_accuracy(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Share of the top N pixels that lie inside the ground truth, N the number of ground-truth pixels: `bbox` by another name.

    Ground truth is always a mask here (boxes are filled in), so the two agree. Not defined for a map that is the same everywhere.
    """
    return only_where(varies(evidence.maps), bbox(evidence))


def half_of(maps: Float[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    """Pixels with at least half of their map's maximum."""
    return maps >= maps.amax(dim=(1, 2), keepdim=True) / 2


def boxed(regions: Bool[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    """The tightest upright box around each region, filled."""
    rows, columns = regions.any(dim=2), regions.any(dim=1)
    return spanned(rows)[:, :, None] & spanned(columns)[:, None, :]


def spanned(line: Bool[Tensor, "batch pixel"]) -> Bool[Tensor, "batch pixel"]:
    """From the first to the last True of every row."""
    return line.cummax(dim=1).values & line.flip(1).cummax(dim=1).values.flip(1)


def overlap(
    first: Bool[Tensor, "batch height width"], second: Bool[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """Intersection over union, float64; 0 where both are empty."""
    shared, joint = (first & second).sum(dim=(1, 2)), (first | second).sum(dim=(1, 2))
    return shared.double() / joint.clamp(min=1)


def near(truth: Bool[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    """Pixels less than 15 px away from a pixel of the ground truth."""
    reach = torch.arange(1 - TOLERANCE, TOLERANCE, device=truth.device)
    disc = (reach[:, None] ** 2 + reach[None, :] ** 2 < TOLERANCE**2).float()
    return F.conv2d(truth[:, None].float(), disc[None, None], padding=TOLERANCE - 1)[:, 0] > 0.5


def present(evidence: Evidence) -> Bool[Tensor, "batch height width"]:
    """The ground truth, which the caller made sure is there.

    Raises:
        ValueError: When it is not.
    """
    if evidence.truth is None:
        raise ValueError("a localisation metric was asked for without ground truth")
    return evidence.truth
