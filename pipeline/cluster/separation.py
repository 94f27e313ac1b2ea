"""Measure how far apart groups of points lie: silhouettes (Rousseeuw 1987) and mean distances, on samples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import pdist
from sklearn.metrics import silhouette_samples

SEEN = 500
"""Members of a group that are compared, at most."""


def separations(
    points: Float[np.ndarray, "rows dimensions"], group: Int[np.ndarray, " rows"], *, seed: int = 0
) -> Float[np.ndarray, " groups"]:
    """Mean silhouette of each group, on at most `SEEN` members of each.

    The points in no group count as one more group, for which none is returned.

    Args:
        points: Any.
        group: 0, 1, ...; negative: in no group.
        seed: Seed of the samples.

    Returns:
        In [-1, 1], 1 far apart; NaN where there is only one group.
    """
    count = int(group.max(initial=-1)) + 1
    random = np.random.default_rng([seed, count])
    members = [np.flatnonzero(group == number) for number in range(count)] + [np.flatnonzero(group < 0)]
    samples = [_sample(rows, SEEN, random) for rows in members if len(rows)]
    if len(samples) < 2:
        return np.full(count, np.nan)
    labels = np.repeat(np.arange(len(samples)), [len(rows) for rows in samples])
    if len(labels) == len(samples):  # single points, of which scikit-learn gives none a silhouette
        return np.zeros(count)
    silhouette = np.asarray(silhouette_samples(points[np.concatenate(samples)].astype(np.float64), labels))
    return np.array([silhouette[labels == number].mean() for number in range(count)])


def tightness(
    roots: Float[np.ndarray, "rows pixels"], group: Int[np.ndarray, " rows"], usual: float, *, seed: int = 0
) -> Float[np.ndarray, " groups"]:
    """How much nearer the members of a group are to each other than any two maps of the run: 1 - their mean distance / `usual`.

    Args:
        roots: Square roots of the maps' masses.
        group: 0, 1, ...; negative: in no group.
        usual: Mean distance of two maps of the run, as `mean_distance`.
        seed: Seed of the samples.

    Returns:
        At most 1, which means equal maps; 0 for maps no nearer than any two of the run.
    """
    count = int(group.max(initial=-1)) + 1
    distances = [mean_distance(roots[group == number], seed=seed) for number in range(count)]
    return np.array([1 - distance / usual if usual > 0 else 0.0 for distance in distances])


def mean_distance(points: Float[np.ndarray, "rows dimensions"], *, seed: int = 0) -> float:
    """Mean distance of two different points; 0 for fewer than two. On a sample where there are many."""
    random = np.random.default_rng([seed, len(points)])
    some = points[_sample(np.arange(len(points)), SEEN, random)].astype(np.float64)
    return float(pdist(some).mean()) if len(some) > 1 else 0.0


def _sample(rows: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))
