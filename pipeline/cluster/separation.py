"""How far apart groups of points lie: silhouettes (Rousseeuw 1987) on samples, so that the work does not grow with the square."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

JUDGED = 500
"""Members of a group that are judged, at most."""
SEEN = 500
"""Members of every group that they are compared with, at most."""


def separations(
    points: Float[np.ndarray, "rows dimensions"], group: Int[np.ndarray, " rows"], *, seed: int = 0
) -> Float[np.ndarray, " groups"]:
    """Mean silhouette of each group: (b - a) / max(a, b), a the mean distance to the own group, b to the nearest other one.

    The points outside of all groups count as one more, which is not judged.

    Args:
        points: Any.
        group: 0, 1, ...; negative: outside.
        seed: Of the samples.

    Returns:
        In [-1, 1], 1 far apart; NaN where there is nothing else.
    """
    count = int(group.max(initial=-1)) + 1
    random = np.random.default_rng([seed, count])
    members = [np.flatnonzero(group == one) for one in range(count)] + [np.flatnonzero(group < 0)]
    samples = [_sample(one, SEEN, random) for one in members if len(one)]
    if len(samples) < 2:
        return np.full(count, np.nan)
    found = np.empty(count)
    for one in range(count):
        judged = points[_sample(samples[one], JUDGED, random)].astype(np.float64)
        means = np.stack([_mean_distances(judged, points[other].astype(np.float64), own=which == one)
                          for which, other in enumerate(samples)])  # fmt: skip
        within = means[one].copy()
        means[one] = np.inf
        apart = means.min(axis=0)
        larger = np.maximum(within, apart)
        found[one] = np.mean(np.where(larger > 0, (apart - within) / np.where(larger > 0, larger, 1), 0.0))
    return found


def tightness(
    roots: Float[np.ndarray, "rows pixels"], group: Int[np.ndarray, " rows"], usual: float, *, seed: int = 0
) -> Float[np.ndarray, " groups"]:
    """How much nearer the members of a group are to each other than any two maps of the run: 1 - their mean distance / `usual`.

    Args:
        roots: Square roots of the maps' masses.
        group: 0, 1, ...; negative ones are not judged.
        usual: Mean distance of two maps of the run, as `mean_distance`.
        seed: Of the samples.

    Returns:
        At most 1, which means equal maps; 0 is what any maps have.
    """
    count = int(group.max(initial=-1)) + 1
    found = [mean_distance(roots[group == one], seed=seed) for one in range(count)]
    return np.array([1 - one / usual if usual > 0 else 0.0 for one in found])


def mean_distance(points: Float[np.ndarray, "rows dimensions"], *, seed: int = 0) -> float:
    """Mean distance of two different points; 0 for fewer than two. On a sample where there are many."""
    random = np.random.default_rng([seed, len(points)])
    some = points[_sample(np.arange(len(points)), SEEN, random)].astype(np.float64)
    return float(np.mean(_mean_distances(some, some, own=True))) if len(some) > 1 else 0.0


def _sample(rows: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))


def _mean_distances(judged: np.ndarray, others: np.ndarray, *, own: bool) -> np.ndarray:
    squares = (judged**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None, :] - 2 * judged @ others.T
    distances = np.sqrt(squares.clip(0))
    return distances.sum(axis=1) / max(1, len(others) - own)
