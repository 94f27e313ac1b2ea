"""Rank labels by how little they are supported: confidences of the model and of a cross-validated linear probe on its features.

As in confident learning (Northcutt, Jiang and Chuang, JAIR 2021) the confidence of the label ranks. `bench/accuracy/planted.py` is where
`LITTLE`, `MUCH`, and the exponents were looked at.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .wrong_label_count import estimate_wrong, wrong_range

FOLDS = 5
REPEATS = 3
"""Cross-validations whose confidences are averaged, with other folds each."""
MOST_PRODUCTS = 30_000_000
"""Images times features times classes up to which cross-validation is repeated."""
LEFT_OUT_SHARE = 0.1
"""Least supported labels, of all, that the cleaned probe is not trained on where another class has more."""
OWN_SHARE = 0.25
"""Exponent of the model's confidence where every class has many images; the cleaned probe's is twice the probe's."""
MANY_IMAGES = 20
"""Images of a class with which a probe on them is trusted half as far."""
BY_HEART = 0.99
"""Share of the labels with which a model agrees that has learned them by heart, or has nothing to say of wrong ones."""
ERRORS = 2.0
"""Standard errors by which one classifier must agree with the labels more often than another to be judged better."""
MOST_WEIGHTS = 5_000_000
"""Images times classes up to which a linear probe is trained; beyond, neighbours vote."""
VOTERS = 20
STRENGTH = 0.3
"""Inverse regularisation of the probe."""
LITTLE = 0.05
"""Most confidence of a label that is accused."""
MUCH = 0.5
"""Least confidence of the class that is suggested instead."""


@dataclass(frozen=True, eq=False)
class LabelProbes:
    """Cross-validated confidences of linear classifiers; NaN rows for classes of fewer than `FOLDS` images."""

    probe: Float[np.ndarray, "image class"]
    cleaned: Float[np.ndarray, "image class"]
    """Of one that was not trained on the least supported labels."""


@dataclass(frozen=True, eq=False)
class LabelQuality:
    """How well each label is supported."""

    suspicion: Float[np.ndarray, " image"]
    """In [0, 1]: 1 - weighted geometric mean of the label's confidences."""
    suggested: Int[np.ndarray, " image"]
    """Class that has the most confidence instead; -1 for none."""
    accused: Bool[np.ndarray, " image"]
    """Whether the label has next to no confidence and another class has much."""
    estimated_wrong: float
    """Estimated number of wrong labels."""
    wrong_range: tuple[float, float]
    """From how many to how many wrong labels agree with what was seen (95 %)."""
    probe: Float[np.ndarray, "image class"]
    """Confidences of the probe, each for images it was not trained on; NaN for classes of fewer than `FOLDS` images."""
    class_seen: Bool[np.ndarray, " image"]
    """Whether more than half of the images with the label have more than next to no confidence in it. Of a class that is seldom seen nothing can be
    told: it accuses nobody, and its images are not counted."""


def linear_probe(
    features: Float[np.ndarray, "image feature"],
    labels: Int[np.ndarray, " image"],
    classes: int,
    *,
    seed: int = 0,
    trusted: Bool[np.ndarray, " image"] | None = None,
) -> Float[np.ndarray, "image class"]:
    """Confidences of a linear classifier on the features, 5-fold cross-validated, so that no label speaks for itself.

    Args:
        features: Of the classifying layer.
        labels: Class indices, one for each image.
        classes: Number of classes.
        seed: Seed of the folds.
        trusted: Images to train on; None for all. The others are judged, too.

    Returns:
        Rows sum to 1; NaN for images of classes with fewer than `FOLDS` images.
    """
    counts = np.bincount(labels, minlength=classes)
    usable = counts[labels] >= FOLDS
    probe = np.full((len(labels), classes), np.nan)
    known = np.unique(labels[usable])
    if len(known) < 2:
        return probe
    own = np.ones(len(labels), bool) if trusted is None else np.asarray(trusted)
    if usable.sum() * len(known) > MOST_WEIGHTS:
        probe[usable] = _neighbours_vote(features[usable], labels[usable], classes, own[usable])
        return probe
    whole = np.zeros((int(usable.sum()), classes))
    values, names, kept = features[usable], labels[usable], own[usable]
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(values, names):
        train = train[kept[train]] if len(np.unique(names[train[kept[train]]])) > 1 else train
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = cast(Any, model.fit(values[train], names[train]))
        whole[np.ix_(test, fitted.classes_)] = fitted.predict_proba(values[test])
    probe[usable] = whole
    return probe


def label_probes(
    confidences: Float[np.ndarray, "image class"],
    features: Float[np.ndarray, "image feature"],
    labels: Int[np.ndarray, " image"],
) -> LabelProbes:
    """The probe on all images, and one that was not trained on the least supported labels, so that wrong ones do not teach it.

    Args:
        confidences: Of the model, or the user's own.
        features: Of the classifying layer.
        labels: Class indices.
    """
    classes, rows = confidences.shape[1], np.arange(len(labels))
    repeats = REPEATS if features.size * classes <= MOST_PRODUCTS else 1
    probe = np.mean([linear_probe(features, labels, classes, seed=seed) for seed in range(repeats)], axis=0)
    known = np.isfinite(probe).all(axis=1)
    joint = np.sqrt(np.clip(confidences, 1e-6, 1) * np.where(known[:, None], np.nan_to_num(probe), confidences))
    own, others = joint[rows, labels], joint.copy()
    others[rows, labels] = -1
    trusted = ~((others.max(axis=1) > own) & (own <= np.quantile(own, LEFT_OUT_SHARE)))
    cleaned = np.mean(
        [linear_probe(features, labels, classes, seed=seed, trusted=trusted) for seed in range(repeats)], axis=0
    )
    return LabelProbes(probe, cleaned)


def label_quality(
    confidences: Float[np.ndarray, "image class"],
    probes: LabelProbes | None,
    labels: Int[np.ndarray, " image"],
    *,
    several: bool = False,
    held_out: bool = False,
) -> LabelQuality:
    """Rank labels by a weighted geometric mean of the confidences.

    The model's weight is small where each class has many images (`MANY_IMAGES`), because it may have learned wrong labels by heart, and grows where
    a probe has little to learn from. A model that agrees with the labels significantly less often than the probe does not count; the user's own
    confidences count alone where they do so more often, because nobody learned their labels.

    Args:
        confidences: Of the model (or the user's own), in [0, 1].
        probes: As `label_probes` gives them; NaN rows count as the model's. None without features.
        labels: Class indices.
        several: Whether an image may have several classes (sigmoid): then no other class speaks against the label.
        held_out: Whether the confidences come from a model that was not trained on these labels (the user's own).
    """
    rows = np.arange(len(labels))
    clipped = np.clip(confidences, 1e-6, 1)
    probe = np.full(confidences.shape, np.nan) if probes is None else probes.probe
    joint, second = clipped, clipped
    if probes is not None and not several:
        known = np.asarray(np.isfinite(probe).all(axis=1))
        second = np.where(known[:, None], np.nan_to_num(probe), clipped)
        cleaned = np.where(known[:, None], np.nan_to_num(probes.cleaned), clipped)
        weight = _weight(confidences, second, labels, held_out)
        joint = clipped**weight * np.clip(second, 1e-6, 1) ** ((1 - weight) / 3)
        joint = joint * np.clip(cleaned, 1e-6, 1) ** (2 * (1 - weight) / 3)
    suspicion = 1 - joint[rows, labels]
    if several:
        own = joint[rows, labels]
        seen = _usual(own, labels) >= MUCH
        accused = np.asarray((own <= LITTLE) & seen)
        none, count = np.full(len(labels), -1), float(accused.sum())
        return LabelQuality(suspicion, none, accused, count, (0.0, count), probe, seen)
    others = joint.copy()
    others[rows, labels] = -1
    suggested = others.argmax(axis=1)
    plain = np.sqrt(
        clipped * np.clip(second, 1e-6, 1)
    )  # the cleaned probe, never shown the doubtful ones, is too sure of itself
    seen = _usual(plain[rows, labels], labels) > LITTLE
    accused = np.asarray((plain[rows, suggested] >= MUCH) & (plain[rows, labels] <= LITTLE) & seen)
    wrong, low, high = 0.0, 0.0, 0.0
    if seen.any():
        wrong = estimate_wrong(joint[seen], labels[seen], None if probes is None else second[seen])
        low, high = wrong_range(joint[seen], labels[seen])
    return LabelQuality(suspicion, suggested, accused, wrong, (min(low, wrong), max(high, wrong)), probe, seen)


def _usual(own: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each image the median of the confidences of all with its label."""
    medians = {label: float(np.median(own[labels == label])) for label in np.unique(labels)}
    return np.array([medians[label] for label in labels])


def _weight(first: np.ndarray, second: np.ndarray, labels: np.ndarray, held_out: bool) -> float:
    """Exponent of the first confidences, in [0, 1]."""
    hits = [(values.argmax(axis=1) == labels).astype(float) for values in (first, second)]
    lead = hits[0] - hits[1]
    errors = lead.mean() / max(float(lead.std()) / np.sqrt(len(lead)), 1e-12)
    if errors < -ERRORS:
        return 0.0
    if held_out and errors > ERRORS:
        return 1.0
    if not held_out and hits[0].mean() >= BY_HEART:
        return OWN_SHARE
    each = float(np.median(np.bincount(labels)[np.unique(labels)]))
    return 1 - (1 - OWN_SHARE) * each / (each + MANY_IMAGES)


def _neighbours_vote(features: np.ndarray, labels: np.ndarray, classes: int, trusted: np.ndarray) -> np.ndarray:
    """Shares of the labels of each image's nearest other images that are trusted; even shares where there is none."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    known = np.flatnonzero(trusted)
    count = min(VOTERS, len(known) - 1)
    if count < 1:
        return np.full((len(unit), classes), 1 / classes)
    near = NearestNeighbors(n_neighbors=count + 1).fit(unit[known]).kneighbors(unit, return_distance=False)
    votes = np.zeros((len(unit), classes))
    for row, places in enumerate(known[near]):
        others = places[places != row][:count]
        votes[row] = np.bincount(labels[others], minlength=classes) / count
    return votes
