"""Rank labels by how little they are supported: confidences of the model and of a cross-validated linear probe on its features.

As in confident learning (Northcutt, Jiang and Chuang, JAIR 2021) the confidence of the label ranks. `bench/accuracy/planted.py` is where
`LITTLE`, `MUCH` and the number of wrong labels were looked at.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
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
    return LabelQuality(suspicion, suggested, accused, estimate_wrong(joint, labels), probe)


def estimate_wrong(values: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]) -> float:
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
