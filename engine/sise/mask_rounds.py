"""Which of an image's masks to score when not all may be, round by round, and the scores of the others.

Each round's choice knows the rounds before it: where the map's gates are in doubt, and which masks can have a large score at all.
Masks are compared on a coarse grid, so that nothing of full size is held between rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from jaxtyping import Float, Int

from ..lazy_torch import F, torch
from .fusion import fuse
from .layer_masks import LayerMasks
from .mask_surrogate import Posterior, a_optimal, margin, prior_covariance, probabilities
from .otsu_sensitivity import importance

ROUNDS = 6
DRAWS = 32
"""Of all scores, by which the error is estimated."""
LAST = 4.0
"""Weight of the last block, whose gate decides last."""
EVIDENCE = 0.5
"""Share of a pixel's weight in the distance between masks that follows the evidence there; the rest is the same everywhere."""
POOLED = 2
"""Side of the blocks of the coarse grid that a choice sees as one pixel: half its time, and as good a choice."""
LEAST_SLOPE = 0.02
"""A mask's probability moves at least this much with its margin, relative to the mean over masks."""


def rounds_over(layers: Sequence[LayerMasks], allowed: int) -> MaskRounds:
    """Rounds over all masks of these layers, low to high, which take note of their masks' extremes."""
    masks, mass = (torch.cat(parts) for parts in zip(*(layer.survey() for layer in layers), strict=True))
    return MaskRounds(masks, mass, [layer.job.count for layer in layers], allowed, layers[-1].evidence())


class MaskRounds:
    """Chooses masks and predicts scores for one image.

    Args:
        masks: Every kept mask on the coarse grid, layer after layer.
        mass: Sum over pixels of every mask at the input's size.
        counts: Masks of each layer.
        allowed: How many may be scored, at least 1 and fewer than all.
        evidence: Where the last block speaks for the class, at least 0, in any unit: masks that differ there differ more.
    """

    def __init__(
        self,
        masks: Float[torch.Tensor, "mask pixel"],
        mass: Float[torch.Tensor, " mask"],
        counts: Sequence[int],
        allowed: int,
        evidence: Float[torch.Tensor, " pixel"],
    ):
        mean = evidence.mean()
        weight = EVIDENCE * evidence / torch.where(mean > 0, mean, 1) + 1 - EVIDENCE
        self._prior = prior_covariance(masks * weight.sqrt())
        self._parts = torch.where(mass > 0, 1 / torch.where(mass > 0, mass, 1), 0).double()[:, None] * masks
        self._layers = [slice(*edges) for edges in pairwise(accumulate(counts, initial=0))]
        rounds = min(ROUNDS, allowed)
        self._until = [allowed * (number + 1) // rounds for number in range(rounds)]
        self._places = torch.empty(0, dtype=torch.long, device=mass.device)
        self._scores = mass.new_empty(0, dtype=torch.float64)
        self._posterior = Posterior(self._prior, self._places, self._scores)
        self._slopes = mass.new_ones(len(mass), dtype=torch.float64)
        self._weights = torch.stack([self._first_weight(masks) for masks in self._layers])
        self.expected = torch.full_like(self._slopes, 0.5)
        """Scores as far as they are known and as they are expected else, in [0, 1]."""

    @property
    def finished(self) -> bool:
        """Whether nothing more may be scored."""
        return len(self._places) >= self._until[-1]

    @property
    def scored(self) -> Int[torch.Tensor, " scored"]:
        """Masks that are scored, round by round."""
        return self._places

    def choose(self) -> Int[torch.Tensor, " chosen"]:
        """The masks of the next round, ascending."""
        limit = next(limit for limit in self._until if limit > len(self._places))
        views = pooled(self._parts * self._slopes[:, None] * self._spread(self._weights).sqrt())
        chosen = a_optimal(self._posterior, views, self._layers, limit - len(self._places), self._places)
        return chosen.sort().values

    def take(self, chosen: Int[torch.Tensor, " chosen"], scores: Float[torch.Tensor, " chosen"]) -> None:
        """Learn the scores, finite and in [0, 1], of what was chosen."""
        self._places = torch.cat([self._places, chosen])
        self._scores = torch.cat([self._scores, scores.double()])
        self._posterior = Posterior(self._prior, self._places, margin(self._scores))
        variance = self._posterior.variance
        self.expected, spread = probabilities(self._posterior.mean, variance)
        self.expected[self._places] = self._scores
        slopes = (spread / variance.clamp(min=1e-9)).sqrt()
        self._slopes = (slopes / slopes.mean()).clamp(min=LEAST_SLOPE)
        maps, spans = self._maps(self.expected[None])
        self._weights = importance(maps[0]) / spans[0].square()

    def error(self) -> Float[torch.Tensor, ""]:
        """Expected RMS error of the map in [0, 1], by the surrogate's own covariance: over draws of all scores that are not known."""
        draws = torch.sigmoid(self._posterior.draws(DRAWS))
        draws[:, self._places] = self.expected[self._places]
        maps = self._maps(draws)[0]
        fused = torch.stack([fuse(layer_map[:, None])[0] for layer_map in maps])
        centre = fuse(self._maps(self.expected[None])[0][0][:, None])[0]
        return (fused - centre).square().mean().sqrt() / len(self._layers)

    def _maps(
        self, scores: Float[torch.Tensor, "draw mask"]
    ) -> tuple[Float[torch.Tensor, "draw layer pixel"], Float[torch.Tensor, "draw layer 1"]]:
        """The blocks' maps under these scores, each in [0, 1] over its own range, and the ranges."""
        sums = torch.stack([scores[:, masks] @ self._parts[masks] for masks in self._layers], dim=1)
        low, high = sums.amin(dim=2, keepdim=True), sums.amax(dim=2, keepdim=True)
        span = torch.where(high > low, high - low, torch.inf)
        return (sums - low) / span, span

    def _first_weight(self, masks: slice) -> Float[torch.Tensor, " pixel"]:
        """Before anything is known every layer matters alike, whatever its number of masks."""
        parts = self._parts[masks]
        size = parts.square().sum(dim=1).mean() * len(parts) ** 2
        return torch.where(size > 0, 1 / torch.where(size > 0, size, 1), 0).expand(parts.shape[1])

    def _spread(self, weights: Float[torch.Tensor, "layer pixel"]) -> Float[torch.Tensor, "mask pixel"]:
        emphasis = weights.new_tensor([1.0] * (len(weights) - 1) + [LAST])
        rows = [
            row.expand(masks.stop - masks.start, -1)
            for row, masks in zip(weights * emphasis[:, None], self._layers, strict=True)
        ]
        return torch.cat(rows)


def pooled(views: Float[torch.Tensor, "mask pixel"]) -> Float[torch.Tensor, "mask block"]:
    """Views on the coarse grid, averaged over square blocks where the grid is one of that many pixels a side."""
    side = math.isqrt(views.shape[1])
    if side % POOLED or side * side != views.shape[1]:
        return views
    return F.avg_pool2d(views.unflatten(1, (side, side))[:, None], POOLED).flatten(1)
