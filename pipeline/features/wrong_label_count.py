"""Estimate how many labels are wrong: from the images that a model is surest of, and by maximum likelihood.

With 60 wrong labels among 1200 images of which a weak model is right about three in four, the surest tenth holds two to six of them: no estimate
can be exact there, so a range is given, too. `bench/accuracy/planted.py` measures both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import binomtest

ANCHOR_SHARE = 0.1
"""Share of a predicted class's images of which the model counts as sure."""
FEWEST_ANCHORS = 20
HONEST_SHARE = 0.01
"""Mistakes of a model among the images that it is surest of, for which no label is to blame."""
MOST_MIXED = 200
"""Classes up to which the transition matrix is fitted."""
MIXTURE_STEPS = 60


def estimate_wrong(
    values: Float[np.ndarray, "image class"],
    labels: Int[np.ndarray, " image"],
    probe: Float[np.ndarray, "image class"] | None = None,
) -> float:
    """Number of wrong labels: the geometric mean of `wrong_by_anchors` and, where there is a probe, `wrong_by_mixture`.

    The first is too high for weak models, the second too low for mistakes that prefer one other class.

    Args:
        values: Confidences by which the surest images are chosen.
        labels: Class indices.
        probe: Cross-validated confidences.
    """
    anchors = wrong_by_anchors(values, labels)
    if probe is None or values.shape[1] > MOST_MIXED:
        return anchors
    return float(np.sqrt(anchors * wrong_by_mixture(probe, labels)))


def wrong_range(values: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]) -> tuple[float, float]:
    """From how many to how many labels may be wrong: Wilson's interval of the share that disagrees among the surest images, times all.

    From 0 where the share is no more than chance makes of `HONEST_SHARE`.
    """
    surest = [(index, rows) for index, rows, _ in _anchors(values)]
    looked_at = sum(len(rows) for _, rows in surest)
    wrong = sum(int((labels[rows] != index).sum()) for index, rows in surest)
    interval = binomtest(wrong, looked_at).proportion_ci(method="wilson")
    low = 0.0 if binomtest(wrong, looked_at, HONEST_SHARE, alternative="greater").pvalue > 0.05 else interval.low
    return float(low * len(labels)), float(interval.high * len(labels))


def _anchors(values: np.ndarray) -> Iterator[tuple[int, np.ndarray, int]]:
    """Of every predicted class its index, the surest images and how many it has in all."""
    predicted = values.argmax(axis=1)
    for index in np.unique(predicted):
        rows = np.flatnonzero(predicted == index)
        count = min(len(rows), max(FEWEST_ANCHORS, round(ANCHOR_SHARE * len(rows))))
        yield int(index), rows[np.argsort(-values[rows, index], kind="stable")[:count]], len(rows)


def wrong_by_anchors(values: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]) -> float:
    """Number of wrong labels, from the images of which the model is surest (anchor points, Patrini et al. 2017).

    There honest mistakes are rare, so that the share of labels that disagree is the share of wrong ones; of every predicted class the
    surest tenth is looked at, and its share counts for all of the class.
    """
    return sum(all_rows * float(np.mean(labels[rows] != index)) for index, rows, all_rows in _anchors(values))


def wrong_by_mixture(probe: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]) -> float:
    """Number of wrong labels, by maximum likelihood: a label is drawn from its true class, which the probe's confidences, at a temperature
    that is fitted too, are the odds of (expectation maximisation of the transition matrix)."""
    count, logs = probe.shape[1], np.log(np.clip(probe, 1e-12, 1))
    transition = np.full((count, count), 0.1 / count) + 0.9 * np.eye(count)
    stated = np.eye(count)[labels]
    beta, counts = 1.0, np.eye(count)

    def odds(sharpness: float) -> np.ndarray:
        return np.asarray(softmax(sharpness * logs, axis=1))

    for step in range(MIXTURE_STEPS):
        if step % 5 == 0:
            chosen = transition[:, labels].T
            fit = minimize_scalar(
                lambda log_beta, chosen=chosen: -np.log((odds(np.exp(log_beta)) * chosen).sum(axis=1) + 1e-300).sum(),
                bounds=(-1, 2), method="bounded",
            )  # fmt: skip
            beta = float(np.exp(cast(Any, fit).x))
        joint = odds(beta) * transition[:, labels].T
        joint /= np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)
        counts = joint.T @ stated
        transition = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    return float(max(0.0, len(labels) - np.trace(counts)))
