"""Metrics of maps that explain a dense model: its own segmentation under insertion and deletion, and the classes around the target."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..metric_units import CLASS_INDEX
from ..scoring.confidence import BACKGROUND
from .faithfulness import whole_image
from .localisation import XEDGEAI
from .perturbation import STEPS, area, deleted, inserted
from .protocol import Evidence, Probe, metric, only_where, varies

WHOLE_OVERLAP = Probe("whole_overlap", 1, whole_image, of_map=False, reads="truth")
INSERTED_OVERLAP = Probe("inserted_overlap", STEPS, inserted, reads="truth")
DELETED_OVERLAP = Probe("deleted_overlap", STEPS, deleted, reads="truth")


@metric(
    version=1, unit="IoU", range=(0.0, 1.0), better="higher", needs="model",
    baseline="the image blurred by a Gaussian (11 x 11, sigma 5 px, edges replicated)", source=XEDGEAI,
    probes=(WHOLE_OVERLAP, INSERTED_OVERLAP), dense=True,
)  # fmt: skip
def ins_iou(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Area under the IoU of the pixels that get the target with the ground truth, against the fraction shown on the blurred image.

    Dense models with ground truth. Most relevant first, 20 equal steps, trapezoids.
    """
    inserted_first = (evidence.probes[INSERTED_OVERLAP.name], evidence.probes[WHOLE_OVERLAP.name])
    return overlap_area(evidence, torch.cat(inserted_first, dim=1))


@metric(
    version=1, unit="IoU", range=(0.0, 1.0), better="lower", needs="model", baseline="0 in network-input space", source=XEDGEAI,
    probes=(WHOLE_OVERLAP, DELETED_OVERLAP), dense=True,
)  # fmt: skip
def del_iou(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Area under the IoU of the pixels that get the target with the ground truth, against the fraction of pixels set to 0.

    Dense models with ground truth. Most relevant first, 20 equal steps, trapezoids.
    """
    whole_first = (evidence.probes[WHOLE_OVERLAP.name], evidence.probes[DELETED_OVERLAP.name])
    return overlap_area(evidence, torch.cat(whole_first, dim=1))


@metric(
    version=1, unit="share of mass", range=(0.0, 1.0), better="neither", needs="map", source="ours", dense=True,
)  # fmt: skip
def outside_context(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Share of S on pixels to which the dense model gives another class than the target, the background (class 0) apart."""
    return context_shares(evidence).sum(dim=1)


@metric(
    version=1, unit="share of mass", range=(0.0, 1.0), better="neither", needs="map", source="ours", dense=True,
)  # fmt: skip
def context_share(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Share of S on the pixels of the one other class (neither target nor background) that has most of it: `context_class`."""
    return context_shares(evidence).amax(dim=1)


@metric(
    version=1, unit=CLASS_INDEX, range=(0.0, float("inf")), better="neither", needs="map", source="ours", dense=True,
)  # fmt: skip
def context_class(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Index of the class, other than the target and the background (class 0), on whose pixels most of S lies.

    Not defined where no such class has any of it; of equal ones the lowest index.
    """
    shares = context_shares(evidence)
    return only_where(shares.amax(dim=1) > 0, shares.argmax(dim=1).double())


def context_shares(evidence: Evidence) -> Float[Tensor, "batch class"]:
    """Share of S on the pixels of each class, 0 for the target and the background; NaN of a map without mass.

    Raises:
        ValueError: When the model is not dense.
    """
    if evidence.scenes is None or evidence.targets is None:
        raise ValueError("a metric of dense models was asked for without scenes")
    classes, targets = evidence.scenes.long().flatten(1), evidence.targets.long()[:, None]
    mass = evidence.maps.double().flatten(1)
    count = int(max(classes.max(), targets.max(), BACKGROUND)) + 1
    shares = mass.new_zeros(len(mass), count).scatter_add(1, classes, mass) / mass.sum(dim=1, keepdim=True)
    shares = shares.scatter(1, targets, shares.gather(1, targets) * 0)  # NaN stays NaN
    shares[:, BACKGROUND] *= 0
    return shares


def overlap_area(evidence: Evidence, curve: Float[Tensor, "batch step"]) -> Float[Tensor, " batch"]:
    """Area under the curve; not defined where the ground truth is empty, or the model is not dense (-1)."""
    marked = torch.zeros(len(curve), dtype=torch.bool, device=curve.device)
    if evidence.truth is not None:
        marked = evidence.truth.flatten(1).any(dim=1)
    return only_where(varies(evidence.maps) & marked & (curve >= 0).all(dim=1), area(evidence, curve))
