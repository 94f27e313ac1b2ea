"""Hash what an image looks like: the signs of its 64 lowest cosine coefficients (pHash), the same for small changes of it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from scipy.fft import dctn

SIDE_PIXELS = 32
BITS = 64


def perceptual_hash(grey: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, 8]:
    """64 bits of a grey image of any size: each says whether a coefficient lies above the median.

    The coefficients of brightness and the order of the bits do not change with brightness and contrast.
    """
    low = _reduced(_reduced(grey, SIDE_PIXELS).T, SIDE_PIXELS).T
    coefficients = np.asarray(dctn(low, norm="ortho"))[:9, :9].ravel()[1 : BITS + 1]
    return np.packbits(coefficients > np.median(coefficients))


def _reduced(image: np.ndarray, rows: int) -> np.ndarray:
    """Averages over equal bands of rows; repeated rows where there are fewer."""
    edges = np.linspace(0, len(image), rows + 1)
    starts = np.minimum(edges[:-1].astype(int), len(image) - 1)
    stops = np.maximum(starts + 1, np.ceil(edges[1:]).astype(int))
    total = np.concatenate([np.zeros((1, image.shape[1])), np.cumsum(image, axis=0, dtype=np.float64)])
    return (total[stops] - total[starts]) / (stops - starts)[:, None]
