"""ROAD: remove and debias. What is removed is filled in from its surroundings, so that its shape does not give it away."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .imputation import impute
from .protocol import Evidence, Probe, Subject, Variants, metric, only_where, varies
from .ranking import top_pixels

PERCENTILES = (20, 40, 60, 80)
NOISE = 0.01
"""Standard deviation of what is added to an imputed pixel, in network-input units."""


def imputed(subject: Subject) -> Variants:
    """The image without its 20, 40, 60 and 80 % most relevant pixels, then without its least relevant ones.

    The notes say which were filled in as they should: 1, else NaN.
    """
    return imputed_together([subject])[0]


def imputed_together(subjects: Sequence[Subject]) -> list[Variants]:
    """As `imputed`, all systems of several images of one size solved together."""
    removed = [holes(subject) for subject in subjects]
    count = len(removed[0])
    noise = torch.cat([noise_of(subject, count) for subject in subjects])
    images = torch.stack([subject.image for subject in subjects]).repeat_interleave(count, dim=0)
    filled, solved = impute(images, torch.cat(removed), noise.to(images))
    notes = torch.where(solved, 1.0, torch.nan)
    return [copied(*each) for each in zip(filled.split(count), notes.split(count), strict=True)]


def copied(filled: Float[Tensor, "variant channel height width"], notes: Float[Tensor, " variant"]) -> Variants:
    """Variants that are there already."""
    return Variants(lambda start, out: out.copy_(filled[start : start + len(out)]), notes)


def noise_of(subject: Subject, count: int) -> Float[Tensor, "variant channel height width"]:
    """What is added to imputed pixels, of the image's own generator."""
    return NOISE * torch.randn(count, *subject.image.shape, generator=subject.generator("road"))


def holes(subject: Subject) -> Bool[Tensor, "variant height width"]:
    """Which pixels each variant lacks."""
    pixels, size = len(subject.order), (subject.image.shape[1], subject.image.shape[2])
    counts = torch.tensor(
        [min(round(part * pixels / 100), pixels - 1) for part in PERCENTILES], device=subject.order.device
    )
    orders = subject.order.expand(len(counts), -1)
    return torch.cat([top_pixels(orders, counts, size), top_pixels(orders.flip(1), counts, size)])


IMPUTED = Probe("road", 2 * len(PERCENTILES), imputed, together=imputed_together)


@metric(
    version=1, unit="probability", range=(-0.5, 0.5), better="higher", needs="model",
    baseline="noisy linear imputation from the 8 neighbours (1/6 direct, 1/12 diagonal, noise 0.01)",
    source="Rong et al., ICML 2022 (ROAD)", probes=(IMPUTED,),
)  # fmt: skip
def road(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Mean over 20, 40, 60, 80 % of (p without the least relevant - p without the most relevant pixels) / 2, imputed.

    Always exactly that share of the pixels, however many of them tie. Noise is drawn from the image's own generator.
    """
    scores, solved = evidence.probes[IMPUTED.name].double(), evidence.notes[IMPUTED.name]
    most, least = scores.chunk(2, dim=1)
    return only_where(varies(evidence.maps) & solved.isfinite().all(dim=1), (least - most).mean(dim=1) / 2)
