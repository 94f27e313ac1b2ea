"""The difference of two groups of trained models over the same images: images and seeds are both samples of what could have been."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LEVEL = 0.95


@dataclass(frozen=True)
class SeedDifference:
    """Second group minus first."""

    images: int
    first: float
    second: float
    """Means over images and seeds."""
    difference: float
    low: float
    high: float
    """95 % interval of the difference."""
    p: float
    """Two-sided, of no difference."""
    first_seeds: tuple[float, ...]
    second_seeds: tuple[float, ...]
    """Means over the images, one per model."""


def seed_difference(
    first: Float[np.ndarray, "model image"], second: Float[np.ndarray, "model2 image"]
) -> SeedDifference | None:
    """Compare two groups of models, each a seed, by a number per image; None where fewer than two images have one.

    The variance is that of the mean difference over images (the same ones in both, so paired) plus that of each group's mean over its
    seeds; the t distribution has Welch and Satterthwaite's degrees of freedom. With one model in a group only images vary, and nothing
    is said of other seeds.

    Args:
        first: Of the models before; NaN where an image has no value, for all models alike.
        second: Of the models after.
    """
    from scipy import stats

    there = ~(np.isnan(first).any(axis=0) | np.isnan(second).any(axis=0))
    first, second = first[:, there], second[:, there]
    images = first.shape[1]
    if images < 2:
        return None
    differences = second.mean(axis=0) - first.mean(axis=0)
    # Of shares that are all 0 or all 1 in the sample nobody knows that they always are: half an image's worth of doubt.
    parts = [(max(float(differences.var(ddof=1)) / images, (0.5 / images) ** 2), images - 1)]
    for group in (first, second):
        if len(group) > 1:
            parts.append((float(group.mean(axis=1).var(ddof=1)) / len(group), len(group) - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    difference, error = float(differences.mean()), variance**0.5
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return SeedDifference(
        images, float(first.mean()), float(second.mean()), difference, difference - reach, difference + reach,
        float(2 * stats.t.sf(abs(difference) / error, freedom)),
        tuple(map(float, first.mean(axis=1))), tuple(map(float, second.mean(axis=1))),
    )  # fmt: skip
