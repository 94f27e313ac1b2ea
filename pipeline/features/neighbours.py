"""Find outliers and near-duplicates by nearest neighbours in the feature space, duplicates confirmed by perceptual hashes.

Outliers are looked for among the images of one label: strangers of one kind lie near each other, but seldom have one label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 10
NEAR_BITS = 8
"""Most of the 64 bits that differ between the hashes of near-duplicates."""
NEAR_COSINE = 0.9
"""Cosine of the features of near-duplicates that is enough in any network."""
CLOSE_SHARE = 0.99
"""Less is enough where it is more than so large a share of random pairs has: features of some networks are less alike than those of others."""
RANDOM_PAIRS = 20_000


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each image lies from those of its label."""

    distance: Float[np.ndarray, " image"]
    """Mean distance of the features to the nearest `NEIGHBOURS` others of the label."""
    deviations: Float[np.ndarray, " image"]
    """Robust deviations of a distance's logarithm above the median: of the features, or of the unit features, whichever is more."""
    nearest: Int[np.ndarray, " image"]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs of images that look the same, each image with the one it resembles most."""

    row: Int[np.ndarray, " duplicate"]
    other: Int[np.ndarray, " duplicate"]
    bits: Int[np.ndarray, " duplicate"]
    """How many of the 64 bits of the hashes differ."""
    cosine: Float[np.ndarray, " duplicate"]
    mirrored: np.ndarray
    """Whether the other is the mirror image."""


def find_outliers(
    features: Float[np.ndarray, "image feature"], labels: Int[np.ndarray, " image"] | None = None
) -> Outliers:
    """The k-NN distance of every image to the others of its label.

    Args:
        features: Of the classifying layer.
        labels: Class indices, or any other groups; None for one group.
    """
    groups = np.zeros(len(features), np.int64) if labels is None else labels
    distance, unit_distance, nearest = (
        np.zeros(len(features)),
        np.zeros(len(features)),
        np.zeros(len(features), np.int64),
    )
    unit = unit_rows(features)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        distance[rows], places = _mean_distances(features[rows])
        unit_distance[rows], _ = _mean_distances(unit[rows])
        nearest[rows] = rows[places]
    return Outliers(distance, np.maximum(_deviations(distance), _deviations(unit_distance)), nearest)


def _mean_distances(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance to the nearest others, and the nearest one; 0 and itself for a point without others."""
    count = min(NEIGHBOURS, len(points) - 1)
    if count < 1:
        return np.zeros(len(points)), np.zeros(len(points), np.int64)
    distances, places = NearestNeighbors(n_neighbors=count + 1).fit(points).kneighbors(points)
    own = places == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True  # of several equal images the own one need not be among the nearest
    others = np.where(own, np.inf, distances)
    mean = distances[~own].reshape(len(points), count).mean(axis=1)
    return mean, places[np.arange(len(points)), others.argmin(axis=1)]


def _deviations(distance: np.ndarray) -> np.ndarray:
    """Robust deviations of the logarithm above its median; 0 where all are equal."""
    logs = np.log(np.maximum(distance, 1e-6))
    centre = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - centre))
    return (logs - centre) / spread if spread > 0 else np.zeros(len(logs))


def find_duplicates(
    features: Float[np.ndarray, "image feature"],
    hashes: UInt8[np.ndarray, "image 8"],
    mirrored: UInt8[np.ndarray, "image 8"],
) -> Duplicates:
    """Pairs whose hashes differ by at most `NEAR_BITS` bits and whose features point the same way, as far as this network's features do.

    Args:
        features: Of the classifying layer.
        hashes: Perceptual hashes.
        mirrored: Those of the mirrored images.
    """
    unit = unit_rows(features)
    least = least_cosine(unit)
    pairs = [_near(hashes, hashes, unit, least, False), _near(mirrored, hashes, unit, least, True)]
    row, other, bits, cosine, flipped = (np.concatenate(column) for column in zip(*pairs, strict=True))
    order = np.lexsort((other, -cosine, bits, row))
    _, first = np.unique(row[order], return_index=True)
    kept = order[first]
    return Duplicates(row[kept], other[kept], bits[kept], cosine[kept], flipped[kept])


def least_cosine(unit: Float[np.ndarray, "image feature"]) -> float:
    """Least cosine of near-duplicates: that of `CLOSE_SHARE` of random pairs, at most `NEAR_COSINE`."""
    if len(unit) < 2:
        return NEAR_COSINE
    random = np.random.default_rng(0)
    first = random.integers(0, len(unit), RANDOM_PAIRS)
    second = (first + random.integers(1, len(unit), RANDOM_PAIRS)) % len(unit)
    cosines = np.concatenate(
        [(unit[first[place : place + 1024]] * unit[second[place : place + 1024]]).sum(axis=1)
         for place in range(0, RANDOM_PAIRS, 1024)]
    )  # fmt: skip
    return float(min(NEAR_COSINE, np.quantile(cosines, CLOSE_SHARE)))


def unit_rows(features: Float[np.ndarray, "image feature"]) -> Float[np.ndarray, "image feature"]:
    """Features of length 1; those of length 0 stay."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _near(
    asked: np.ndarray, known: np.ndarray, unit: np.ndarray, least: float, flipped: bool
) -> tuple[np.ndarray, ...]:
    left, right = (np.unpackbits(hashes, axis=1).astype(np.float32) for hashes in (asked, known))
    count = min(4, len(right))
    squares, places = NearestNeighbors(n_neighbors=count).fit(right).kneighbors(left)
    bits = np.rint(squares**2).astype(np.int64)  # of zeros and ones the squared distance counts what differs
    row = np.repeat(np.arange(len(left)), count)
    other, bits = places.ravel(), bits.ravel()
    cosine = (unit[row] * unit[other]).sum(axis=1)
    near = (row != other) & (bits <= NEAR_BITS) & (cosine >= least)
    return row[near], other[near], bits[near], cosine[near], np.full(int(near.sum()), flipped)
