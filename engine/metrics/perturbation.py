"""Insertion and deletion (RISE): how fast does the score come, or go, when pixels come, or go, most relevant first?

The area is taken against the true fraction of pixels, so it does not scale with the number of steps or the image's size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .faithfulness import WHOLE
from .protocol import Evidence, Probe, Subject, Variants, metric, only_where, varies

RISE_PAPER = "Petsiuk et al., BMVC 2018 (RISE), section 4.1"
STEPS = 20
KERNEL = 11
SIGMA = 5.0


def step_counts(pixels: int) -> list[int]:
    """How many pixels have changed after 0, 1, ..., 20 steps: as equal as whole pixels allow, the last being all."""
    return [round(step * pixels / STEPS) for step in range(STEPS + 1)]


def leading(subject: Subject, first: int, count: int) -> Bool[Tensor, "step height width"]:
    """The most relevant pixels after `first`, `first + 1`, ... steps."""
    order = subject.order
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    counts = torch.tensor(step_counts(len(order))[first : first + count], device=order.device)
    return (rank < counts[:, None]).unflatten(1, subject.map.shape)


def inserted(subject: Subject) -> Variants:
    """The blurred image with the most relevant pixels shown after 0 to 19 steps; after 20 it is the image itself."""
    blurred = blur(subject.image)
    return Variants(
        lambda start, out: torch.where(leading(subject, start, len(out))[:, None], subject.image, blurred, out=out)
    )


def deleted(subject: Subject) -> Variants:
    """The image with the most relevant pixels set to 0 in network-input space after 1 to 20 steps; after 0 it is the image."""
    return Variants(
        lambda start, out: torch.mul(subject.image, ~leading(subject, start + 1, len(out))[:, None], out=out)
    )


INSERTED = Probe("inserted", STEPS, inserted)
DELETED = Probe("deleted", STEPS, deleted)


@metric(
    version=1, unit="probability", range=(0.0, 1.0), better="higher", needs="model",
    baseline="the image blurred by a Gaussian (11 x 11, sigma 5 px, edges replicated)",
    source=RISE_PAPER, probes=(WHOLE, INSERTED),
)  # fmt: skip
def insertion_auc(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Area under p against the fraction of pixels shown on the blurred image, most relevant first, 20 equal steps, trapezoids."""
    return area(evidence, torch.cat([evidence.probes[INSERTED.name], evidence.probes[WHOLE.name]], dim=1))


@metric(
    version=1, unit="probability", range=(0.0, 1.0), better="lower", needs="model", baseline="0 in network-input space",
    source=RISE_PAPER, probes=(WHOLE, DELETED),
)  # fmt: skip
def deletion_auc(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Area under p against the fraction of pixels set to 0, most relevant first, 20 equal steps, trapezoids."""
    return area(evidence, torch.cat([evidence.probes[WHOLE.name], evidence.probes[DELETED.name]], dim=1))


def area(evidence: Evidence, curve: Float[Tensor, "batch step"]) -> Float[Tensor, " batch"]:
    """Area under the curve over the true fractions of pixels, in float64."""
    pixels = evidence.order.shape[1]
    fractions = torch.tensor(step_counts(pixels), device=curve.device, dtype=torch.float64) / pixels
    return only_where(varies(evidence.maps), torch.trapezoid(curve.double(), fractions, dim=1))


def blur(image: Float[Tensor, "channel height width"]) -> Float[Tensor, "channel height width"]:
    """Convolve with a Gaussian of 11 x 11 pixels and sigma 5, edges replicated."""
    reach = torch.arange(KERNEL, device=image.device, dtype=image.dtype) - KERNEL // 2
    weights = (-(reach**2) / (2 * SIGMA**2)).exp()
    weights = (weights / weights.sum()).expand(len(image), 1, 1, KERNEL)
    half = KERNEL // 2
    padded = F.pad(image[None], (half, half, half, half), mode="replicate")
    rows = F.conv2d(padded, weights, groups=len(image))
    return F.conv2d(rows, weights.transpose(2, 3), groups=len(image))[0]
