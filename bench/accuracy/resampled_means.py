"""How sure the mean of a difference is: intervals from resampled images, and what they say of a metric."""

from __future__ import annotations

import numpy as np
from heatlas.engine.metrics import METRICS


def mean_interval(values: np.ndarray, resamples: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean over images `(image,)` that have a value, at least one of them."""
    values = values[~np.isnan(values)]
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def shown_change(interval: tuple[float, float], metric: str) -> int:
    """1 where the whole interval of a difference is on the better side of 0 by the metric, -1 on the worse one, else 0."""
    sign = 1 if METRICS[metric].better == "higher" else -1
    ends = [sign * end for end in interval]
    return 1 if min(ends) > 0 else -1 if max(ends) < 0 else 0
