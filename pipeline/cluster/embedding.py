"""Reduce maps to a few principal components, near each other where two maps have their mass in the same places."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA

DIMENSIONS = 10


def embed(mass: Float[np.ndarray, "rows pixels"], dimensions: int = DIMENSIONS) -> Float[np.ndarray, "rows dimensions"]:
    """Principal components of the square roots of the masses, whose Euclidean distance is (up to a factor) Hellinger's.

    Exact and without random numbers: the covariance of a few hundred pixels is small, however many maps there are.

    Args:
        mass: Maps as distributions, rows sum to 1.
        dimensions: Most components kept; those without variance are left out.
    """
    points = np.sqrt(mass)
    if len(points) < 2 or not np.ptp(points, axis=0).any():  # scikit-learn divides by the variance
        return np.zeros((len(points), 0), np.float32)
    pca = PCA(min(dimensions, *points.shape), svd_solver="covariance_eigh")
    components = pca.fit_transform(points.astype(np.float64))
    strength = pca.explained_variance_
    kept = strength > 1e-9 * max(strength.max(initial=0.0), 1e-12)
    return np.ascontiguousarray(components[:, kept], np.float32)


def joined(
    maps: Float[np.ndarray, "rows dimensions"], features: Float[np.ndarray, "rows feature"]
) -> Float[np.ndarray, "rows dimensions2"]:
    """Maps and what the classifying layer is given, side by side, each with a total variance of 1, so that neither decides by its scale.

    Args:
        maps: As `embed` gives them.
        features: Of the same images; rows that are not finite count as the mean.
    """
    known = np.where(np.isfinite(features).all(axis=1, keepdims=True), features, np.nan)
    if not np.isfinite(known).any():
        return maps
    filled = np.where(np.isfinite(known), known, np.nanmean(known, axis=0)).astype(np.float64)
    blocks = [maps.astype(np.float64)]
    count = min(DIMENSIONS, len(filled) - 1, filled.shape[1])
    if count >= 1 and np.ptp(filled, axis=0).any():
        spread = filled.std(axis=0)
        blocks.append(
            PCA(count, svd_solver="full").fit_transform(
                (filled - filled.mean(axis=0)) / np.where(spread > 0, spread, 1)
            )
        )
    scaled = [block / np.sqrt(max(float(block.var(axis=0).sum()), 1e-12)) for block in blocks if block.shape[1]]
    return np.ascontiguousarray(np.concatenate(scaled, axis=1), np.float32) if scaled else maps
