"""Sets of metrics by cost, so that nobody pays for explanations that nobody reads."""

from __future__ import annotations

from collections.abc import Iterable

from .protocol import METRICS

PAPER = ("drop_pct", "increase", "ebpg", "miou", "bbox")
"""What the SISE paper reports: 2 forwards per image."""

CHEAP = (
    "average_gain_pct", "insertion_auc", "deletion_auc", "entropy", "gini", "complexity_l1", "pointing_hit",
    "relevance_rank_accuracy", "border_share", "centroid_x", "centroid_y", "spread", "n_components", "top_area",
    "layer_agreement",
)  # fmt: skip
"""What the map tells, and what 40 further forwards buy, where SISE itself takes hundreds."""

DENSE = ("ebpg", "iou_half", "bbox_iou_half", *(name for name, metric in METRICS.items() if metric.dense))
"""Of maps that explain a dense model: 41 forwards per image."""

METRIC_PRESETS: dict[str, tuple[str, ...]] = {
    "paper": PAPER,
    "standard": PAPER + CHEAP,
    "full": tuple(name for name, metric in METRICS.items() if not metric.dense),
    "dense": DENSE,
}
"""Metric names by preset; `full` adds imputation (solved on the device) and 13 further explanations per image at most."""


def spelt_out(names: Iterable[str]) -> tuple[str, ...]:
    """Metric names with presets replaced by what they stand for, each name once, in order."""
    return tuple(dict.fromkeys(name for given in names for name in METRIC_PRESETS.get(given, (given,))))
