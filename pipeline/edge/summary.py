"""What an edge model costs, as numbers over the measured images: accuracy with intervals, agreement, drift by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..compare.predictions import mcnemar
from ..report.scores import wilson
from ..text import class_name
from .drift import DriftRow

RESAMPLES = 1000
AGREEMENTS = ("spearman", "iou", "wasserstein")


def accuracy_facts(rows: Sequence[DriftRow], *, seed: int = 0) -> dict[str, Any]:
    """Of both models: accuracy on the labelled images (Wilson's intervals, McNemar's exact test), of dense models the mean IoU with what is
    marked (intervals from resampled images); `change` is edge less base, its interval from resampled images.
    """
    if any(row.same_pixels is not None for row in rows):
        return _overlap_facts([row.mask_iou for row in rows if row.mask_iou is not None], rows, seed)
    labelled = [row for row in rows if row.label is not None]
    if not labelled:
        return {"task": "classification", "labelled": 0}
    base = np.array([row.prediction == row.label for row in labelled])
    edge = np.array([row.edge_finite and row.edge_prediction == row.label for row in labelled])
    only = int((base & ~edge).sum()), int((edge & ~base).sum())
    return {
        "task": "classification", "labelled": len(labelled),
        "accuracy": {
            name: {"mean": float(right.mean()), "interval": list(wilson(int(right.sum()), len(right)) or ())}
            for name, right in (("base", base), ("edge", edge))
        },
        "change": _resampled(edge.astype(float) - base, seed),
        "only_base_right": only[0], "only_edge_right": only[1], "mcnemar_p": mcnemar(*only),
    }  # fmt: skip


def agreement_facts(rows: Sequence[DriftRow], floor: float, class_names: Sequence[str]) -> dict[str, Any]:
    """Means over the images, beside those of the base model with itself under other masks; then by the predicted class."""
    by_class: dict[int, list[DriftRow]] = {}
    for row in rows:
        by_class.setdefault(row.prediction, []).append(row)
    return {
        **_agreement(rows, floor),
        "noise_floor_iou": None if np.isnan(floor) else floor,
        "judged": sum(row.is_judged for row in rows),
        "edge_not_finite": sum(not row.edge_finite for row in rows),
        "classes": [
            {"class": index, "name": class_name(class_names, index), **_agreement(by_class[index], floor)}
            for index in sorted(by_class)
        ],
    }


def _overlap_facts(ious: Sequence[tuple[float, float]], rows: Sequence[DriftRow], seed: int) -> dict[str, Any]:
    facts = {
        "task": "segmentation",
        "labelled": len(ious),
        "same_pixels": mean_of([row.same_pixels for row in rows]),
    }
    if not ious:
        return facts
    base, edge = np.array(ious).T
    return {
        **facts,
        "accuracy": {"base": _resampled(base, seed), "edge": _resampled(edge, seed)},
        "change": _resampled(edge - base, seed),
    }


def _agreement(rows: Sequence[DriftRow], floor: float) -> dict[str, Any]:
    drifted = sum(row.is_drift(floor) for row in rows)
    return {
        "images": len(rows),
        "same_prediction": sum(row.same_prediction for row in rows),
        "drifted": drifted,
        "drift_share": drifted / len(rows),
        **{
            part: {name: mean_of([getattr(getattr(row, part), name) for row in rows]) for name in AGREEMENTS}
            for part in ("agreement", "noise")
        },
        "d_ebpg": mean_of([row.d_ebpg for row in rows]),
        "confidence_change": mean_of([abs(row.confidence - row.edge_confidence) for row in rows]),
    }


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of the values that are there; None without any."""
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _resampled(values: np.ndarray, seed: int) -> dict[str, Any]:
    """The mean over images and its 95 % interval from resampled images."""
    random = np.random.default_rng(seed)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    return {"mean": float(values.mean()), "interval": [float(end) for end in np.percentile(means, (2.5, 97.5))]}
