"""An image under a budget: rounds of masks that are scored, and at the end a score for every mask, known or expected."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from jaxtyping import Int

from ..lazy_torch import torch
from ..requests import Job, Score, Steps
from ..transfer import to_host

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
    finite_scores = torch.ones((), dtype=torch.bool, device=layers[0].image.device)
    while not rounds.finished:
        chosen = rounds.choose()
        finite, *masks = to_host(
            torch.cat([finite_scores.long()[None], chosen])
        )  # the one look at the device of a round
        if not finite:
            return Spent(n_scored, None)
        jobs = [
            Job(len(places), layer.job.target, layer.fill_some(places))
            for layer, places in zip(layers, places_by_layer(masks, chosen, counts), strict=True)
        ]
        yield Score(scorer, layers[0].image, jobs)
        n_scored += len(masks)
        scores = torch.cat([job.scores for job in jobs])
        finite_scores = scores.isfinite().all()
        rounds.take(chosen, scores)
    for layer, scores in zip(layers, rounds.expected.split(counts), strict=True):
        layer.job.scores = scores
    finite, error = to_host(torch.stack([finite_scores.double(), rounds.error()]))
    return Spent(n_scored, error if finite else None)


def places_by_layer(
    masks: Sequence[int], chosen: Int[torch.Tensor, " chosen"], counts: Sequence[int]
) -> list[Int[torch.Tensor, " _"]]:
    """The chosen masks as places in each layer.

    Args:
        masks: Of all layers, counted through, ascending.
        chosen: The same on the device.
        counts: Masks of each layer.
    """
    starts = list(accumulate(counts, initial=0))
    edges = [bisect_left(masks, start) for start in starts]
    return [chosen[first:last] - start for start, (first, last) in zip(starts, pairwise(edges), strict=False)]
