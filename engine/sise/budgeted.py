"""An image under a budget: its rounds through the scorer, and at the end a score for every mask, known or expected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..scoring.masked_scorer import Job, Scorer
from .layer_masks import LayerMasks
from .mask_rounds import MaskRounds, rounds_over


class BudgetedMasks:
    """Scores some of an image's masks and gives every layer's job scores for all of them.

    Args:
        layers: The kept masks; their jobs are not to be submitted.
        allowed: How many masks may be scored, at least 1 and fewer than there are.
    """

    def __init__(self, layers: Sequence[LayerMasks], allowed: int):
        self._layers = layers
        self._counts = [layer.job.count for layer in layers]
        self._rounds: MaskRounds | None = rounds_over(layers, allowed)
        self._chosen: list[int] = []
        self._jobs: list[Job] = []
        self.n_scored = 0
        """Masks scored or queued."""
        self.finite = True
        """Whether every score is a number."""
        self.error: float | None = None
        """Expected RMS error of the map in [0, 1], once `done`."""

    @property
    def done(self) -> bool:
        """Whether every layer's job has its scores."""
        return self._rounds is None

    def submit(self, scorer: Scorer) -> None:
        """Queue the next round."""
        if self._rounds is None:
            return
        self._chosen = sorted(self._rounds.choose())
        self.n_scored += len(self._chosen)
        self._jobs = [
            Job(len(places), layer.job.target, layer.fill_some(places))
            for layer, places in zip(self._layers, self._places(self._chosen), strict=True)
        ]
        scorer.submit(*self._jobs, like=self._layers[0].image)

    def advance(self, scorer: Scorer) -> bool:
        """Take in a round that is scored, and queue the next or finish; whether there was one."""
        moved = False
        while self.finite and self._rounds is not None and all(job.done for job in self._jobs):
            moved = True
            scores = torch.cat([job.scores for job in self._jobs])
            self.finite = bool(scores.isfinite().all())
            if not self.finite:
                break
            self._rounds.take(self._chosen, scores)
            if self._rounds.finished:
                self._finish(self._rounds)
            else:
                self.submit(scorer)
        return moved

    def _finish(self, rounds: MaskRounds) -> None:
        self.error = rounds.error()
        for layer, scores in zip(self._layers, rounds.expected.split(self._counts), strict=True):
            layer.job.scores = scores
        self._rounds = None  # it holds the square of the number of masks

    def _places(self, chosen: Sequence[int]) -> list[Tensor]:
        """The chosen masks by layer, as places in the layer; `chosen` ascends."""
        device = self._layers[0].image.device
        start, found = 0, []
        for count in self._counts:
            found.append(
                torch.tensor(
                    [one - start for one in chosen if start <= one < start + count], dtype=torch.long, device=device
                )
            )
            start += count
        return found
