"""Does the map of what the map shows look like the map? Coherency, and ADCC which joins it with drop and complexity.

Poppi et al. mask softly: x * S, a plain product in network-input space.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .complexity import complexity_l1
from .faithfulness import WHOLE
from .protocol import Evidence, ExtraExplanations, Probe, Subject, Variants, metric, only_where
from .ranking import correlation

POPPI_PAPER = "Poppi et al., CVPR workshops 2021"


def shown(subject: Subject) -> Tensor:
    """x * S."""
    return subject.image * subject.map.to(subject.image.dtype)


def shown_variant(subject: Subject) -> Variants:
    """x * S, to be scored."""
    return Variants(lambda start, out: out.copy_(shown(subject)[None]))


def shown_pair(subject: Subject) -> list[tuple[Tensor, int]]:
    """x * S, to be explained for the same class."""
    return [(shown(subject), subject.target)]


SHOWN = Probe("shown", 1, shown_variant)
SHOWN_MAP = ExtraExplanations("shown", 1, shown_pair)


@metric(
    version=1, unit="share", range=(0.0, 1.0), better="higher", needs="model", baseline="0 in network-input space, softly",
    source=POPPI_PAPER, explains=(SHOWN_MAP,),
)  # fmt: skip
def coherency(evidence: Evidence) -> Float[Tensor, " batch"]:
    """(Pearson(S(x), S(x * S(x))) + 1) / 2, both maps of the same class.

    Not defined where x * S has no map, or where either map is the same everywhere.
    """
    again = evidence.explained[SHOWN_MAP.name][:, 0]
    return (correlation(evidence.maps.flatten(1), again.flatten(1)) + 1) / 2


@metric(
    version=1, unit="share", range=(0.0, 1.0), better="higher", needs="model", baseline="0 in network-input space, softly",
    source=POPPI_PAPER, probes=(WHOLE, SHOWN), explains=(SHOWN_MAP,),
)  # fmt: skip
def adcc(evidence: Evidence) -> Float[Tensor, " batch"]:
    """3 / (1 / coherency + 1 / (1 - complexity_l1) + 1 / (1 - drop)), drop = max(0, p - p(x * S)) / p, per image.

    The drop is the soft one of Poppi et al., not `drop_pct`. 0 where one of the three is 0. The mean over a data set is the mean of
    these values; Poppi et al. print the harmonic mean of the three means.
    """
    whole, masked = evidence.probes[WHOLE.name][:, 0].double(), evidence.probes[SHOWN.name][:, 0].double()
    kept = 1 - only_where(whole > 0, (whole - masked).clamp(min=0) / whole)
    return harmonic_mean(torch.stack([coherency(evidence), 1 - complexity_l1(evidence), kept], dim=1))


def harmonic_mean(values: Float[Tensor, "batch part"]) -> Float[Tensor, " batch"]:
    """Of numbers that are at least 0; 0 where one of them is; NaN where one of them is."""
    mean = values.shape[1] / (1 / values.clamp(min=torch.finfo(values.dtype).tiny)).sum(dim=1)
    return torch.where((values <= 0).any(dim=1), 0, mean).where(~values.isnan().any(dim=1), torch.nan)
