"""Group points by density (HDBSCAN); beyond `LANDMARKS` points, group a sample and assign the rest by nearest neighbours.

No matrix of all distances is made: neighbours come from a tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import HDBSCAN
from sklearn.neighbors import NearestNeighbors

LANDMARKS = 8000
VOTERS = 5
MOST_NOISE = 0.35
"""Share of points in no group above which the whole is treated as one group."""
LONELY = 4.0
"""Distance to the neighbours, in medians over all points, above which a point is in no group."""
ALONE = -1
"""The number of points that are in no group."""


@dataclass(frozen=True, eq=False)
class DensityGroups:
    """The group of every point."""

    group: Int[np.ndarray, " rows"]
    """0 the largest group, and so on; `ALONE` for points outside."""
    probability: Float[np.ndarray, " rows"]
    """How clearly a point belongs to its group, in [0, 1]; 0 for points outside."""

    @property
    def count(self) -> int:
        return int(self.group.max(initial=ALONE)) + 1


def density_groups(points: Float[np.ndarray, "rows dimensions"], least: int, *, seed: int = 0) -> DensityGroups:
    """Group the points.

    Args:
        points: In a reproducible order, because landmarks are chosen by row number.
        least: Fewest points of a group.
        seed: Seed of the choice of landmarks.
    """
    if len(points) <= LANDMARKS:
        return _sorted_by_size(*_grouped(points, least))
    chosen = np.sort(np.random.default_rng([seed, len(points)]).choice(len(points), LANDMARKS, replace=False))
    scaled = max(2, round(least * LANDMARKS / len(points)))
    group, probability = _grouped(points[chosen], scaled)
    return _sorted_by_size(*_follow(points, chosen, group, probability))


def _grouped(points: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    if len(points) < 2 * least or not points.shape[1]:
        return _one_cloud(points)
    method = HDBSCAN(min_cluster_size=least, min_samples=min(VOTERS, least), allow_single_cluster=True, copy=True)  # pyright: ignore[reportArgumentType]  (copy is a flag)
    fitted = method.fit(points.astype(np.float64))
    group = fitted.labels_.astype(np.int64)
    if (group == ALONE).mean() > MOST_NOISE:
        return _one_cloud(points)
    return group, np.where(group == ALONE, 0.0, fitted.probabilities_)


def _one_cloud(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One group of all points except those far from their neighbours."""
    group, probability = np.zeros(len(points), np.int64), np.ones(len(points))
    if len(points) <= 2 * VOTERS or not points.shape[1]:
        return group, probability
    distance = NearestNeighbors(n_neighbors=VOTERS + 1).fit(points).kneighbors(points)[0][:, -1]
    limit = LONELY * np.median(distance)
    group[distance > limit] = ALONE
    return group, np.where(group == ALONE, 0.0, 1 - np.minimum(distance / limit, 1) if limit > 0 else probability)


def _follow(
    points: np.ndarray, chosen: np.ndarray, group: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every point's group by the vote of its nearest landmarks; landmarks keep theirs."""
    rest = np.setdiff1d(np.arange(len(points)), chosen)
    nearest = NearestNeighbors(n_neighbors=VOTERS).fit(points[chosen]).kneighbors(points[rest], return_distance=False)
    votes = np.zeros((len(rest), group.max() + 2))
    for voter in nearest.T:
        votes[np.arange(len(rest)), group[voter] + 1] += 1
    joined = votes.argmax(axis=1) - 1
    agree = group[nearest] == joined[:, None]
    sure = np.where(joined == ALONE, 0.0, (probability[nearest] * agree).sum(axis=1) / VOTERS)
    all_groups, all_sure = np.empty(len(points), np.int64), np.empty(len(points))
    all_groups[chosen], all_groups[rest], all_sure[chosen], all_sure[rest] = group, joined, probability, sure
    return all_groups, all_sure


def _sorted_by_size(group: np.ndarray, probability: np.ndarray) -> DensityGroups:
    """Groups numbered by size, equal ones by their first point."""
    there = group != ALONE
    names, first, sizes = np.unique(group[there], return_index=True, return_counts=True)
    rank = np.empty(len(names), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(names))
    numbered = np.full(len(group), ALONE, np.int64)
    numbered[there] = rank[np.searchsorted(names, group[there])]
    return DensityGroups(numbered, probability)
