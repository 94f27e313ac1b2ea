"""Rank methods by the means of several columns, and resample the images to see how much the ranks are to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ...errors import UsageError

LEVEL = 0.95
AT_ONCE = 2**22
"""Random numbers drawn at a time."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks over the columns; 1 is the best."""

    means: Float[np.ndarray, "method column"]
    ranks: Float[np.ndarray, "method column"]
    mean_rank: Float[np.ndarray, " method"]
    low: Float[np.ndarray, " method"]
    high: Float[np.ndarray, " method"]
    """95 % interval of the mean rank."""
    best_share: Float[np.ndarray, " method"]
    """Share of the resamples in which the method has the best mean rank; ties are shared."""
    behind_low: Float[np.ndarray, " method"]
    behind_high: Float[np.ndarray, " method"]
    """95 % interval of the mean rank less that of the best method, over the same resamples."""
    images: np.ndarray
    """`(column,)` images with a value from every method."""

    @property
    def best(self) -> int:
        """The method with the best mean rank; of equal ones the one that is more often the best."""
        return int(np.lexsort((-self.best_share, self.mean_rank))[0])

    @property
    def is_open(self) -> np.ndarray:
        """`(method,)` whether a method cannot be told from the best: the interval of how far it is behind reaches 0."""
        return self.behind_low <= 0


def rank_methods(values: Float[np.ndarray, "method column image"], *, resamples: int, seed: int) -> Ranking:
    """Rank by column means over the images that every method has a value of, and average the ranks over the columns.

    Args:
        values: Larger is better; NaN where a method has no value of an image.
        resamples: Of the images, with replacement; all methods and columns see the same ones.
        seed: Of the resamples.

    Raises:
        UsageError: If a column has no image with a value from every method.
    """
    present = np.asarray(~np.isnan(values).any(axis=0))
    if not present.any(axis=1).all():
        raise UsageError("a column has no image with a value from every method")
    filled = np.where(present[None], values, 0.0)
    count = values.shape[2]
    means = filled.sum(axis=2) / present.sum(axis=1)
    draws = np.concatenate([_resampled(filled, present, weights) for weights in _weights(count, resamples, seed)])
    resampled = column_ranks(draws).mean(axis=2)
    ranks = column_ranks(means[None])[0]
    mean_rank = ranks.mean(axis=1)
    lowest = resampled == resampled.min(axis=1, keepdims=True)
    best_share = (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)
    best = int(np.lexsort((-best_share, mean_rank))[0])
    ends = [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]
    low, high = np.percentile(resampled, ends, axis=0)
    behind_low, behind_high = np.percentile(resampled - resampled[:, [best]], ends, axis=0)
    return Ranking(means, ranks, mean_rank, low, high, best_share, behind_low, behind_high, present.sum(axis=1))


def column_ranks(means: Float[np.ndarray, "draw method column"]) -> Float[np.ndarray, "draw method column"]:
    """Rank of every method in every column, 1 for the largest; equal means share the mean of their ranks."""
    above = (means[:, None] > means[:, :, None]).sum(axis=2)
    equal = (means[:, None] == means[:, :, None]).sum(axis=2)
    return above + (equal + 1) / 2


def _weights(count: int, resamples: int, seed: int):
    random = np.random.default_rng(np.random.SeedSequence([seed, count]))
    step = max(1, AT_ONCE // count)
    for start in range(0, resamples, step):
        drawn = random.integers(count, size=(min(step, resamples - start), count))
        rows = np.arange(len(drawn))[:, None] * count
        yield (
            np.bincount((drawn + rows).ravel(), minlength=len(drawn) * count)
            .reshape(len(drawn), count)
            .astype(np.float64)
        )


def _resampled(filled: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means `(draw, method, column)`; where a draw has no image of a column, that column's methods are equal."""
    totals = np.einsum("di,mci->dmc", weights, filled, optimize=True)
    counts = weights @ present.T.astype(np.float64)
    return totals / np.where(counts > 0, counts, 1)[:, None]
