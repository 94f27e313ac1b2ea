"""Ways to split a class in two by something that some of its images have: a sticker, a frame, a colour cast, a texture.

Candidates are independent components (FastICA) of features, of pixels, of the log spectrum and of mean colours: what some images carry and others
do not is a two-valued source, which natural variation is not. A split is then sharpened by cross-validated linear classification on all of these.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor

SHARES = (0.1, 0.92)
"""Share of a class's images that a cue may have: of fewer or more, one half says too little."""
FEWEST = 8
"""Images of either half."""
SPLITS = 3
"""Components of each space that are tried."""
SIDE_PIXELS = 32
COMPONENTS = 20
"""Principal components of each space by which a split is sharpened."""
ROUNDS = 3
FOLDS = 5


def candidate_splits(
    features: Float[np.ndarray, "row feature"], images: Float[Tensor, "row channel height width"], seed: int
) -> Iterator[Bool[np.ndarray, " row"]]:
    """Ways to split a class in two, both halves in turn."""
    least, most = SHARES[0] * len(features), SHARES[1] * len(features)
    for split in _splits(features, images, seed):
        for members in (split, ~split):
            if max(least, FEWEST) <= members.sum() <= min(most, len(features) - FEWEST):
                yield members


def _splits(features: np.ndarray, images: Tensor, seed: int) -> Iterator[np.ndarray]:
    standard = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    small, spectrum, colours = small_pixels(images), log_spectrum(images), log_colours(images)
    for values, most in ((standard, 12), (small, 10), (small, 20), (spectrum, 20), (colours, 6)):
        count = min(most, len(values) // 8, values.shape[1])
        if count < 2 or not np.ptp(values, axis=0).any():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (ConvergenceWarning))
            warnings.simplefilter("ignore", RuntimeWarning)
            whitened = PCA(count, random_state=seed, whiten=True).fit_transform(values.astype(np.float64))
            kept = whitened[:, np.isfinite(whitened).all(axis=0) & (whitened.std(axis=0) > 0.5)]
            components: Any = FastICA(whiten=cast(Any, False), random_state=seed, max_iter=300)
            sources = np.asarray(components.fit_transform(kept))
        for place in np.argsort(-bimodality(sources), kind="stable")[:SPLITS]:
            yield KMeans(2, n_init=cast(Any, 3), random_state=seed).fit_predict(sources[:, [place]]) == 1
        if values is standard:
            yield KMeans(2, n_init=cast(Any, 5), random_state=seed).fit_predict(kept) == 1


def describe_images(
    features: Float[np.ndarray, "row feature"], images: Float[Tensor, "row channel height width"]
) -> Float[np.ndarray, "row number"]:
    """What tells the images of a class apart: principal components of features, pixels and spectrum, and mean colours."""
    colours = log_colours(images)
    return np.concatenate(
        [
            *(_principal(values) for values in (_standard(features), small_pixels(images), log_spectrum(images))),
            _standard(colours),
        ],
        axis=1,
    )


def sharpened(
    description: Float[np.ndarray, "row number"], members: Bool[np.ndarray, " row"]
) -> tuple[Bool[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """The split that a linear classifier makes of a split, each image judged by one that was not trained on it.

    Returns:
        Members, and the log odds of being one; a split that falls apart is returned as it was.
    """
    odds = np.where(members, 1.0, -1.0)
    for _ in range(ROUNDS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        model = LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            values = np.asarray(
                cross_val_predict(model, description, members, cv=folds, method="decision_function"), np.float64
            )
        if not FEWEST <= (values > 0).sum() <= len(values) - FEWEST:
            break
        members, odds = values > 0, values
    return members, odds


def separation(odds: Float[np.ndarray, " row"]) -> float:
    """Ashman's D of the positive and the negative values: how many of their spreads lie between their means.

    A normal distribution cut in half has 2.65, so that more says that there are two groups. Source: Ashman, Bird and Zepf, AJ 108, 1994.
    """
    above, below = odds[odds > 0], odds[odds <= 0]
    if not len(above) or not len(below):
        return 0.0
    spread = np.sqrt((above.var() + below.var()) / 2)
    return float(min((above.mean() - below.mean()) / max(spread, 1e-6), 1e3))


def bimodality(values: Float[np.ndarray, "row source"]) -> Float[np.ndarray, " source"]:
    """Sarle's coefficient, (skewness^2 + 1) / kurtosis, in (0, 1]: 1 for two values, 5/9 for a uniform, 1/3 for a normal distribution."""
    centred = values - values.mean(axis=0)
    second, third, fourth = ((centred**power).mean(axis=0) for power in (2, 3, 4))
    safe = np.maximum(second, 1e-12)
    return np.asarray(((third / safe**1.5) ** 2 + 1) / np.maximum(fourth / safe**2, 1e-12))


def small_pixels(images: Tensor) -> Float[np.ndarray, "row pixel"]:
    """Pixels, averaged where there are more than `SIDE_PIXELS` a side."""
    height, width = (min(side, SIDE_PIXELS) for side in images.shape[-2:])
    return F.adaptive_avg_pool2d(images, (height, width)).flatten(1).numpy()


def log_spectrum(images: Tensor) -> Float[np.ndarray, "row frequency"]:
    """Logarithm of the grey image's amplitudes, low frequencies in the middle of the rows, averaged where there are more than needed."""
    amplitudes = (torch.fft.fftshift(torch.fft.rfft2(images.mean(dim=1)).abs(), dim=1) + 0.5).log()
    height, width = min(amplitudes.shape[1], SIDE_PIXELS), min(amplitudes.shape[2], SIDE_PIXELS // 2 + 1)
    return F.adaptive_avg_pool2d(amplitudes[:, None], (height, width)).flatten(1).numpy()


def log_colours(images: Tensor) -> Float[np.ndarray, "row number"]:
    """Logarithms of mean and spread of each channel, counted from the least of the class, so that a cast is a shift."""
    values = torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1).numpy().astype(np.float64)
    return np.log(values - values.min(axis=0) + 0.1)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)


def _principal(values: np.ndarray) -> np.ndarray:
    """Principal components, the first with spread 1."""
    count = min(COMPONENTS, len(values) // 8, values.shape[1])
    if count < 1 or not np.ptp(values, axis=0).any():
        return np.empty((len(values), 0))
    projected = PCA(count, random_state=0).fit_transform(values.astype(np.float64))
    return projected / max(float(projected[:, 0].std()), 1e-12)
