"""Does the map show what the model uses? Measured by the model's score on what the map keeps or removes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .protocol import Evidence, Probe, Subject, Variants, metric, only_where
from .ranking import top_share

SISE_PAPER = "Sattarzadeh et al., AAAI 2021, table 1"
TOP_SHARE = 0.15


def whole_image(subject: Subject) -> Variants:
    """The image itself: scored in the same precision and batch shape as its masked variants, so that they compare."""
    return Variants(lambda start, out: out.copy_(subject.image[None]))


def top_only(subject: Subject) -> Variants:
    """The most relevant 15 % of the pixels, the rest 0 in network-input space."""
    mask = top_share(subject.order[None], TOP_SHARE, (subject.image.shape[1], subject.image.shape[2]))
    return Variants(lambda start, out: torch.mul(subject.image, mask, out=out[0]))


WHOLE = Probe("whole", 1, whole_image, of_map=False)
TOP_ONLY = Probe("top_only", 1, top_only)


@metric(
    version=1, unit="%", range=(0.0, 100.0), better="lower", needs="model", baseline="0 in network-input space",
    source=SISE_PAPER, probes=(WHOLE, TOP_ONLY),
)  # fmt: skip
def drop_pct(evidence: Evidence) -> Float[Tensor, " batch"]:
    """max(0, p - p_T) / p * 100, p the target's probability and p_T the same with only the top 15 % pixels kept.

    Not defined where p is 0.
    """
    whole, kept = evidence.probes[WHOLE.name][:, 0], evidence.probes[TOP_ONLY.name][:, 0]
    return torch.where(whole > 0, (whole - kept).clamp(min=0) / whole * 100, torch.nan)


@metric(
    version=1, unit="share of images", range=(0.0, 1.0), better="higher", needs="model", baseline="0 in network-input space",
    source=SISE_PAPER, probes=(WHOLE, TOP_ONLY),
)  # fmt: skip
def increase(evidence: Evidence) -> Float[Tensor, " batch"]:
    """1 if p_T > p else 0, p the target's probability and p_T the same with only the top 15 % pixels kept."""
    whole, kept = evidence.probes[WHOLE.name][:, 0], evidence.probes[TOP_ONLY.name][:, 0]
    return (kept > whole).to(whole.dtype)


@metric(
    version=1, unit="%", range=(0.0, 100.0), better="higher", needs="model", baseline="0 in network-input space",
    source="Zhang et al., Opti-CAM, 2023, with SISE's hard top 15 % in place of the soft mask", probes=(WHOLE, TOP_ONLY),
)  # fmt: skip
def average_gain_pct(evidence: Evidence) -> Float[Tensor, " batch"]:
    """max(0, p_T - p) / (1 - p) * 100, p the target's probability and p_T the same with only the top 15 % pixels kept.

    Not defined where p is 1: nothing can be gained.
    """
    whole, kept = evidence.probes[WHOLE.name][:, 0], evidence.probes[TOP_ONLY.name][:, 0]
    return only_where(whole < 1, (kept - whole).clamp(min=0) / (1 - whole) * 100)
