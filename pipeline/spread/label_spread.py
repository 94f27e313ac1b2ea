"""Spread labels on a graph of nearest neighbours, and turn what arrives into probabilities that held-out labels agree with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.semi_supervised import LabelSpreading

NEIGHBOURS = 15
DIMENSIONS = 32
"""Principal components of the features on which neighbours are looked for."""
CLAMPING = 0.2
"""How far a label may be changed by its neighbours, in (0, 1)."""
ROUNDS = 100
FOLDS = 5
UNKNOWN = -1
Labels = Int[np.ndarray, " row"]
Scores = Float[np.ndarray, " row"]
Evidence = Callable[[Bool[np.ndarray, " row"], Int[np.ndarray, " asked"]], Float[np.ndarray, " asked"] | None]
"""Further evidence for the rows that are asked for, from the labelled rows that may be used; None where there is none."""


@dataclass(frozen=True, eq=False)
class SpreadLabels:
    """What spread, by row."""

    probability: Scores
    """Calibrated, in [0, 1]."""
    held_out: Scores
    """Of the labelled rows, each without its own label, in the order of the rows."""
    truth: Bool[np.ndarray, " labelled"]

    @property
    def accuracy(self) -> float:
        """Share of the held-out labels that are met."""
        return float(((self.held_out > 0.5) == self.truth).mean())

    @property
    def brier(self) -> float:
        """Mean squared error of the held-out probabilities; 0.25 says nothing."""
        return float(((self.held_out - self.truth) ** 2).mean())


def principal_points(features: Float[np.ndarray, "row feature"], seed: int = 0) -> Float[np.ndarray, "row component"]:
    """Standardised features reduced to principal components."""
    spread = features.std(axis=0)
    kept = features[:, spread > 1e-9 * max(float(spread.max(initial=0.0)), 1e-12)]
    if not kept.shape[1]:
        return np.zeros((len(features), 1))
    standard = ((kept - kept.mean(axis=0)) / kept.std(axis=0)).astype(np.float64)
    count = min(DIMENSIONS, *standard.shape)
    return np.asarray(PCA(count, random_state=seed, svd_solver="full").fit_transform(standard))


def spread_labels(
    points: Float[np.ndarray, "row component"], labels: Labels, *, neighbours: int = NEIGHBOURS
) -> Scores:
    """Share of label 1 in what arrives at each row, in [0, 1]; the labels' own share where nothing arrives.

    Source: Zhou et al., Learning with local and global consistency, NIPS 2003, as scikit-learn has it.

    Args:
        points: Rows that are near each other have the same label.
        labels: 0, 1, or `UNKNOWN`; each of 0 and 1 at least once.
        neighbours: Of the graph.
    """
    known = labels != UNKNOWN
    model = LabelSpreading(kernel="knn", n_neighbors=min(neighbours, len(points) - 1), alpha=CLAMPING, max_iter=ROUNDS)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(points, labels)
    distributions: Any = cast(Any, model).label_distributions_
    shares = np.asarray(distributions)[:, 1]
    return np.where(np.isfinite(shares), shares, float((labels[known] == 1).mean()))


def spread_calibrated(
    points: Float[np.ndarray, "row component"],
    labels: Labels,
    evidence: Evidence = lambda usable, asked: None,
    *,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> SpreadLabels:
    """Probabilities of label 1, calibrated by logistic regression on labels that were held out (Platt's scaling).

    Args:
        points: Of every row.
        labels: 0, 1, or `UNKNOWN`; each of 0 and 1 at least twice.
        evidence: Further evidence, asked for with each fold's labels hidden.
        neighbours: Of the graph.
        seed: Of the folds.
    """
    known = np.flatnonzero(labels != UNKNOWN)
    truth = labels[known] == 1
    folds = StratifiedKFold(min(FOLDS, int(min(truth.sum(), (~truth).sum()))), shuffle=True, random_state=seed)
    columns = np.zeros((len(known), 2))
    has_evidence = False
    for kept, hidden in folds.split(known, truth):
        fewer = np.full(len(labels), UNKNOWN)
        fewer[known[kept]] = labels[known[kept]]
        columns[hidden, 0] = _log_odds(spread_labels(points, fewer, neighbours=neighbours))[known[hidden]]
        if (more := evidence(fewer != UNKNOWN, known[hidden])) is not None:
            has_evidence = True
            columns[hidden, 1] = more
    whole = np.zeros((len(labels), 2))
    whole[:, 0] = _log_odds(spread_labels(points, labels, neighbours=neighbours))
    if has_evidence and (more := evidence(labels != UNKNOWN, np.arange(len(labels)))) is not None:
        whole[:, 1] = more
    scale = np.maximum(columns.std(axis=0), 1e-6)
    calibrator = LogisticRegression(C=1.0, max_iter=500)
    judged = np.asarray(
        cross_val_predict(calibrator, columns / scale, truth, cv=folds, method="predict_proba"), np.float64
    )
    probability = calibrator.fit(columns / scale, truth).predict_proba(whole / scale)[:, 1]
    return SpreadLabels(probability, judged[:, 1], truth)


def nearest_decided(points: Float[np.ndarray, "row component"], labels: Labels) -> Int[np.ndarray, " row"]:
    """The labelled row nearest to each row, by number: whose decision it resembles most."""
    from sklearn.neighbors import NearestNeighbors

    known = np.flatnonzero(labels != UNKNOWN)
    places = NearestNeighbors(n_neighbors=1).fit(points[known]).kneighbors(points, return_distance=False)[:, 0]
    return known[places]


def _log_odds(shares: Scores) -> Scores:
    clipped = np.clip(shares, 1e-3, 1 - 1e-3)
    return np.log(clipped / (1 - clipped))
