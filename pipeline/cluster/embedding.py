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
