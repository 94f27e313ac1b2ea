"""Predicts the scores of masks that were not scored, and says which to score next.

One Gaussian process over all masks of an image, whatever their layer: a mask is a point, its coordinates the mask averaged to a
coarse grid, its value the margin logit(Psi). The kernel is rough (Matern 1/2) with a linear part; choosing its length or its kind for
each image gained nothing (docs/budget.md). Everything is float64 and a function of the arguments alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ..lazy_torch import torch

NOISE = 0.01
"""Variance of what the kernel cannot express, relative to its own."""
PROBABILITY_FLOOR = 1e-7
"""Margins are taken of scores clamped to [this, 1 - this]."""
JITTER = 1e-6
"""Added to the diagonal so that rounding leaves the covariance positive."""
NODES = 15


LENGTH = 2.0
"""Of the Matern kernel, in medians of the distance between two masks."""
LINEAR = 0.3
"""Variance of the linear part, relative to the Matern part's."""


def prior_covariance(features: Float[torch.Tensor, "mask feature"]) -> Float[torch.Tensor, "mask mask"]:
    """What the margins of masks have in common before any is known, up to a scale.

    Args:
        features: A row per mask.
    """
    products = features @ features.T
    norms = products.diagonal()
    distances = (norms[:, None] + norms - 2 * products).clamp(min=0).sqrt()
    distances.fill_diagonal_(0)
    median = torch.where(distances > 0, distances, torch.nan).nanmedian().nan_to_num(nan=1.0)
    means = products.mean(dim=1)
    centred = products - means[:, None] - means + means.mean()
    spread = centred.diagonal().mean()
    linear = centred / torch.where(spread > 0, spread, torch.inf)
    return torch.exp(-distances / (median * LENGTH)) + LINEAR * linear


class Posterior:
    """What is known of every mask's margin once some are scored.

    The mean before any score is a constant; it and the scale are the likeliest ones.

    Args:
        prior: Of all masks, see `prior_covariance`.
        scored: Indices of the masks that are scored; may be none.
        margins: Theirs.
    """

    def __init__(
        self, prior: Float[torch.Tensor, "mask mask"], scored: torch.Tensor, margins: Float[torch.Tensor, " scored"]
    ):
        self.prior = prior
        """In units of `scale`."""
        self.reduction = self.prior.new_zeros(len(scored), len(self.prior))
        """`(scored, mask)`: the posterior covariance is `prior - reduction.T @ reduction`."""
        self.scale = self.prior.new_ones(())
        """Variance that one unit of covariance stands for."""
        self.mean = self.prior.new_zeros(len(self.prior))
        if len(scored):
            covariance = self.prior[scored][:, scored]
            covariance.diagonal().add_(NOISE)
            factor = lower_factor(covariance)
            ones = torch.cholesky_solve(torch.ones_like(margins)[:, None], factor)[:, 0]
            level = (ones @ margins) / ones.sum()
            weights = torch.cholesky_solve((margins - level)[:, None], factor)[:, 0]
            across = self.prior[scored]
            self.reduction = torch.linalg.solve_triangular(factor, across, upper=False)
            self.scale = (((margins - level) @ weights) / len(margins)).clamp(min=1e-12)
            self.mean = level + across.T @ weights

    @property
    def variance(self) -> Float[torch.Tensor, " mask"]:
        """Of every margin."""
        left = self.prior.diagonal() - self.reduction.square().sum(dim=0)
        return self.scale * left.clamp(min=0)

    def times(self, vector: torch.Tensor) -> torch.Tensor:
        """Posterior covariance times a vector, in units of `scale`."""
        return self.prior @ vector - self.reduction.T @ (self.reduction @ vector)

    def column(self, mask: Int[torch.Tensor, " 1"]) -> Float[torch.Tensor, " mask"]:
        """One column of the posterior covariance, in units of `scale`."""
        own = self.reduction.index_select(1, mask)[:, 0]
        return self.prior.index_select(1, mask)[:, 0] - self.reduction.T @ own

    def seen_through(self, views: Float[torch.Tensor, "mask pixel"], masks: slice) -> Float[torch.Tensor, "pixel mask"]:
        """`views[masks].T @ covariance[masks]`: how what these masks add up to varies with every mask."""
        own = views[masks]
        return own.T @ self.prior[masks] - (own.T @ self.reduction[:, masks].T) @ self.reduction

    def draws(self, count: int) -> Float[torch.Tensor, "draw mask"]:
        """Margins of all masks together, drawn from the posterior; always the same ones."""
        covariance = self.prior - self.reduction.T @ self.reduction
        covariance.diagonal().add_(JITTER)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64).to(self.mean.device)
        return self.mean + self.scale.sqrt() * noise @ lower_factor(covariance).T


def lower_factor(covariance: Float[torch.Tensor, "n n"]) -> Float[torch.Tensor, "n n"]:
    """Cholesky's; on an accelerator without the look at whether there is one, which would wait for the device."""
    if covariance.device.type == "cpu":
        return torch.linalg.cholesky(covariance)
    return torch.linalg.cholesky_ex(covariance).L


def margin(scores: torch.Tensor) -> torch.Tensor:
    """logit(Psi)."""
    return scores.double().clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR).logit()


def probabilities(
    mean: Float[torch.Tensor, " mask"], variance: Float[torch.Tensor, " mask"]
) -> tuple[Float[torch.Tensor, " mask"], Float[torch.Tensor, " mask"]]:
    """Mean and variance of sigmoid(z), z normal, by Gauss-Hermite quadrature.

    The map is linear in the probability, not in the margin, and sigmoid(mean) is not its mean.
    """
    points, shares = np.polynomial.hermite_e.hermegauss(NODES)
    nodes = torch.from_numpy(points).to(mean.device)
    weights = torch.from_numpy(shares / shares.sum()).to(mean.device)
    values = torch.sigmoid(mean[:, None] + variance.sqrt()[:, None] * nodes)
    expected = values @ weights
    return expected, (values - expected[:, None]).square() @ weights


def a_optimal(
    posterior: Posterior,
    views: Float[torch.Tensor, "mask pixel"],
    layers: Sequence[slice],
    count: int,
    taken: Int[torch.Tensor, " taken"],
) -> Int[torch.Tensor, " chosen"]:
    """The next masks to score: greedily those that lower the summed variance of the layers' maps most.

    Scoring mask k lowers it by (C G C)_kk / (C_kk + noise), C the posterior covariance, G the inner products of the views within
    a layer. Both change with each choice by rank 1, so that a choice costs two products of a matrix and a vector. Nothing here waits for
    the device.

    Args:
        posterior: What is known now.
        views: What a unit of each mask's margin adds to its layer's map, pixels weighted by the root of their importance.
        layers: The masks of each layer.
        count: How many; at most those that are not taken.
        taken: Masks that are scored already, each once.

    Returns:
        On the device, in the order of choice.
    """
    drop = torch.stack([posterior.seen_through(views, masks).square().sum(dim=0) for masks in layers]).sum(dim=0)
    left = posterior.prior.diagonal() - posterior.reduction.square().sum(dim=0)
    is_open = torch.ones(len(left), dtype=torch.bool, device=left.device).index_fill_(0, taken, False)
    steps = min(count, len(left) - len(taken))
    chosen = taken.new_empty(steps)
    removed = posterior.prior.new_zeros(steps, len(left))
    for step in range(steps):
        gain = torch.where(is_open, drop / (left.clamp(min=0) + NOISE), -torch.inf)
        best = gain.argmax()[None]
        chosen[step] = best[0]
        is_open.index_fill_(0, best, False)
        before = removed[:step]
        column = posterior.column(best) - before.T @ before.index_select(1, best)[:, 0]
        column = column / (left.index_select(0, best).clamp(min=0) + NOISE).sqrt()
        weighed = torch.cat([views[masks] @ (views[masks].T @ column[masks]) for masks in layers])
        moved = posterior.times(weighed) - before.T @ (before @ weighed)
        drop = (drop - 2 * column * moved + (column @ weighed) * column.square()).clamp(min=0)
        left = left - column.square()
        removed[step] = column
    return chosen
