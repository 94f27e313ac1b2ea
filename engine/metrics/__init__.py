"""Metrics of explanation maps: one file per family, every metric registered with its definition in `METRICS`."""

from . import faithfulness, localisation
from .metric import METRICS, Evidence, Explains, Metric, Probe, Subject, Variants
from .ranking import rank_pixels, top_pixels, top_share

__all__ = [
    "METRICS", "Evidence", "Explains", "Metric", "Probe", "Subject", "Variants", "faithfulness", "localisation",
    "rank_pixels", "top_pixels", "top_share",
]  # fmt: skip
