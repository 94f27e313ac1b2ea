"""Rank labels by how little they are supported: confidences of the model and of a cross-validated linear probe on its features.

As in confident learning (Northcutt, Jiang and Chuang, JAIR 2021) the confidence of the label ranks. `bench/accuracy/planted.py` is where
`LITTLE`, `MUCH` and the number of wrong labels were looked at.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
MOST_WEIGHTS = 5_000_000
"""Images times classes up to which a linear probe is trained; beyond, neighbours vote."""
VOTERS = 20
STRENGTH = 0.3
"""Inverse regularisation of the probe."""
LITTLE = 0.05
"""Most confidence of a label that is accused."""
MUCH = 0.5
"""Least confidence of the class that is suggested instead."""
ANCHOR_SHARE = 0.1
"""Share of a predicted class's images of which the model counts as sure."""
FEWEST_ANCHORS = 20
MOST_MIXED = 200
"""Classes up to which the transition matrix is fitted."""
MIXTURE_STEPS = 60


@dataclass(frozen=True, eq=False)
class LabelQuality:
    """How well each label is supported."""

    suspicion: Float[np.ndarray, " image"]
    """In [0, 1]: 1 - geometric mean of the label's confidences."""
    suggested: Int[np.ndarray, " image"]
    """Class that has the most confidence instead; -1 for none."""
    accused: Bool[np.ndarray, " image"]
    """Whether the label has next to no confidence and another class has much."""
    estimated_wrong: float
    """Estimated number of wrong labels."""
    probe: Float[np.ndarray, "image class"]
    """Confidences of the probe, each for images it was not trained on; NaN for classes of fewer than `FOLDS` images."""


def linear_probe(
    features: Float[np.ndarray, "image feature"], labels: Int[np.ndarray, " image"], classes: int, *, seed: int = 0
) -> Float[np.ndarray, "image class"]:
    """Confidences of a linear classifier on the features, 5-fold cross-validated, so that no label speaks for itself.

    Args:
        features: Of the classifying layer.
        labels: Class indices, one for each image.
        classes: Number of classes.
        seed: Seed of the folds.

    Returns:
        Rows sum to 1; NaN for images of classes with fewer than `FOLDS` images.
    """
    counts = np.bincount(labels, minlength=classes)
    usable = counts[labels] >= FOLDS
    probe = np.full((len(labels), classes), np.nan)
    known = np.unique(labels[usable])
    if len(known) < 2:
        return probe
    if usable.sum() * len(known) > MOST_WEIGHTS:
        probe[usable] = _neighbours_vote(features[usable], labels[usable], classes)
        return probe
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        values = np.asarray(
            cross_val_predict(model, features[usable], labels[usable], cv=folds, method="predict_proba")
        )
    whole = np.zeros((int(usable.sum()), classes))
    whole[:, known] = values
    probe[usable] = whole
    return probe


def label_quality(
    confidences: Float[np.ndarray, "image class"],
    probe: Float[np.ndarray, "image class"],
    labels: Int[np.ndarray, " image"],
    *,
    several: bool = False,
) -> LabelQuality:
    """Rank labels.

    Args:
        confidences: Of the model (or the user's own), in [0, 1].
        probe: As `linear_probe` gives them; NaN rows count as the model's.
        labels: Class indices.
        several: Whether an image may have several classes (sigmoid): then no other class speaks against the label.
    """
    rows = np.arange(len(labels))
    known = np.asarray(np.isfinite(probe).all(axis=1))
    second = np.where(known[:, None], np.nan_to_num(probe), confidences)
    joint = np.sqrt(np.clip(confidences, 1e-6, 1) * np.clip(second, 1e-6, 1))
    suspicion = 1 - joint[rows, labels]
    if several:
        accused = np.asarray(joint[rows, labels] <= LITTLE)
        none = np.full(len(labels), -1)
        return LabelQuality(suspicion, none, accused, float(accused.sum()), probe)
    others = joint.copy()
    others[rows, labels] = -1
    suggested = others.argmax(axis=1)
    accused = np.asarray((joint[rows, suggested] >= MUCH) & (joint[rows, labels] <= LITTLE))
    return LabelQuality(suspicion, suggested, accused, estimate_wrong(joint, labels, second), probe)


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


def wrong_by_anchors(values: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]) -> float:
    """Number of wrong labels, from the images of which the model is surest (anchor points, Patrini et al. 2017).

    There honest mistakes are rare, so that the share of labels that disagree is the share of wrong ones; of every predicted class the
    surest tenth is looked at, and its share counts for all of the class.
    """
    predicted, total = values.argmax(axis=1), 0.0
    for index in np.unique(predicted):
        rows = np.flatnonzero(predicted == index)
        count = min(len(rows), max(FEWEST_ANCHORS, round(ANCHOR_SHARE * len(rows))))
        surest = rows[np.argsort(-values[rows, index], kind="stable")[:count]]
        total += len(rows) * float(np.mean(labels[surest] != index))
    return total


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


def _neighbours_vote(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Shares of the labels of each image's nearest other images."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    count = min(VOTERS, len(unit) - 1)
    near = NearestNeighbors(n_neighbors=count + 1).fit(unit).kneighbors(unit, return_distance=False)
    votes = np.zeros((len(unit), classes))
    for row, places in enumerate(near):
        others = places[places != row][:count]
        votes[row] = np.bincount(labels[others], minlength=classes) / count
    return votes
