"""Maps as points: near each other where the maps put their mass alike, in few dimensions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

DIMENSIONS = 10


def embed(mass: Float[np.ndarray, "rows pixels"], dimensions: int = DIMENSIONS) -> Float[np.ndarray, "rows dimensions"]:
    """Principal components of the square roots of the masses, whose Euclidean distance is (up to a factor) Hellinger's.

    Exact and without random numbers: the covariance of a few hundred pixels is small, however many maps there are.

    Args:
        mass: Maps as distributions, rows sum to 1.
        dimensions: Components kept, at most; those that explain nothing are left out.
    """
    points = np.sqrt(mass)
    centre = points.mean(axis=0, dtype=np.float64)
    covariance = points.T.astype(np.float64) @ points / max(1, len(points)) - np.outer(centre, centre)
    strength, directions = np.linalg.eigh(covariance)
    kept = np.argsort(-strength)[:dimensions]
    kept = kept[strength[kept] > 1e-9 * max(strength.max(initial=0.0), 1e-12)]
    chosen = directions[:, kept]
    # an eigenvector has no sign of its own
    chosen *= np.where(chosen[np.abs(chosen).argmax(axis=0), np.arange(len(kept))] < 0, -1, 1)
    return np.ascontiguousarray(points @ chosen.astype(np.float32) - (centre @ chosen).astype(np.float32))
