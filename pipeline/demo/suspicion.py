"""Score a ranking against planted faults: precision among the first k, and the area under the ROC curve."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata


def precision_at(wrong: Bool[np.ndarray, " image"], suspicion: Float[np.ndarray, " image"], k: int) -> float:
    """Share of planted images among the `k` most suspicious, ties in stored order."""
    return float(wrong[np.argsort(-suspicion, kind="stable")[:k]].mean()) if k else 0.0


def auroc(wrong: Bool[np.ndarray, " image"], suspicion: Float[np.ndarray, " image"]) -> float:
    """Probability that a planted image is more suspicious than another, ties count half (Mann-Whitney U); NaN for one kind only."""
    planted, rest = int(wrong.sum()), int((~wrong).sum())
    if not planted or not rest:
        return float("nan")
    ranks = rankdata(suspicion)
    return float((ranks[wrong].sum() - planted * (planted + 1) / 2) / (planted * rest))
