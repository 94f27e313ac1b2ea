"""Metrics of explanation maps: one file per family, every metric registered with its definition in `METRICS`.

`sanity` is not among them: it compares two models and needs the explainer, so it is imported by itself.
"""

from . import (
    coherence,
    complexity,
    descriptors,
    faithfulness,
    localisation,
    perturbation,
    removal,
    segmentation,
    sensitivity,
    single_deletion,
)
from .presets import METRIC_PRESETS, spelt_out
from .protocol import METRICS, Evidence, ExtraExplanations, Metric, Probe, Subject, Variants
from .ranking import rank_pixels, top_pixels, top_share

__all__ = [
    "METRICS", "METRIC_PRESETS", "Evidence", "ExtraExplanations", "Metric", "Probe", "Subject", "Variants", "coherence",
    "complexity", "descriptors", "faithfulness", "localisation", "perturbation", "rank_pixels", "removal", "segmentation", "sensitivity",
    "single_deletion", "spelt_out", "top_pixels", "top_share",
]  # fmt: skip
