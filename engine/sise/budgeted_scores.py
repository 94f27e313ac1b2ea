"""An image under a budget: rounds of masks that are scored, and at the end a score for every mask, known or expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..lazy_torch import torch
from ..requests import Job, Score, Steps

if TYPE_CHECKING:
    from ..scoring.masked_scorer import Scorer
from .layer_masks import LayerMasks
from .mask_rounds import rounds_over


@dataclass(frozen=True)
class Spent:
    """What the rounds came to."""

    n_scored: int
    """Masks that were scored."""
    error: float | None
    """Expected RMS error of the map in [0, 1]; None where a score is not finite."""


def score_within(layers: Sequence[LayerMasks], allowed: int, scorer: Scorer) -> Steps[Spent]:
    """Score some of an image's masks and give every layer's job scores for all of them.

    Args:
        layers: The kept masks; their jobs are not submitted.
        allowed: How many masks may be scored, at least 1 and fewer than there are.
        scorer: Scores them.
    """
    counts = [layer.job.count for layer in layers]
    rounds, n_scored = rounds_over(layers, allowed), 0
    while not rounds.finished:
        chosen = sorted(rounds.choose())
        jobs = [
            Job(len(places), layer.job.target, layer.fill_some(places))
            for layer, places in zip(layers, places_by_layer(chosen, counts, layers[0].image.device), strict=True)
        ]
        yield Score(scorer, layers[0].image, jobs)
        n_scored += len(chosen)
        scores = torch.cat([job.scores for job in jobs])
        if not bool(scores.isfinite().all()):
            return Spent(n_scored, None)
        rounds.take(chosen, scores)
    for layer, scores in zip(layers, rounds.expected.split(counts), strict=True):
        layer.job.scores = scores
    return Spent(n_scored, rounds.error())


def places_by_layer(chosen: Sequence[int], counts: Sequence[int], device: torch.device) -> list[torch.Tensor]:
    """The chosen masks, ascending over all layers, as places in each layer."""
    start, places = 0, []
    for count in counts:
        own = [mask - start for mask in chosen if start <= mask < start + count]
        places.append(torch.tensor(own, dtype=torch.long, device=device))
        start += count
    return places
