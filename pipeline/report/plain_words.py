"""Describe each metric in one sentence, and group the metrics by the question they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS: dict[str, tuple[str, str]] = {
    "ebpg": ("Mass on the object", "Share of the map's mass that lies on the marked object. 1: all of it."),
    "miou": ("Overlap with the object", "How well the strongest fifth of the map covers the object: shared area over joint area."),
    "bbox": ("Object found", "As many of the strongest pixels as the object has: the share of them that lies on it."),
    "pointing_hit": ("Peak on the object", "Whether the map's strongest point lies on the object, or within 15 pixels of it."),
    "relevance_rank_accuracy": ("Object found (rank accuracy)", "As many of the strongest pixels as the object has: the share of them that lies on it."),
    "iou_half": ("Strong half and object", "Shared area over joint area of the object and what has at least half of the map's maximum."),
    "bbox_iou_half": ("Boxes of strong half and object", "Shared area over joint area of the box around the object and the box around what has at least half of the map's maximum."),
    "ins_iou": ("Segmentation appears", "Mean overlap of the predicted region with the object while the image is revealed, strongest pixels first. High: what the map marks is enough."),
    "del_iou": ("Segmentation breaks", "Mean overlap of the predicted region with the object while the image is blanked, strongest pixels first. Low: what the map marks is needed."),
    "outside_context": ("Mass on other classes", "Share of the map's mass where the network sees another class than the explained one or the background."),
    "drop_pct": ("Confidence lost", "Percent of the confidence that is lost when only the strongest 15 % of the image stay visible. 0: the map kept all that matters."),
    "increase": ("Confidence gained: how often", "Whether the confidence is higher with only the strongest 15 % of the image visible."),
    "average_gain_pct": ("Confidence gained: how much", "How much the confidence rises, in percent of what it could, with only the strongest 15 % visible."),
    "insertion_auc": ("Evidence added first", "Mean confidence while the image is revealed, strongest pixels first. High: what the map marks is enough."),
    "deletion_auc": ("Evidence removed first", "Mean confidence while the image is blanked, strongest pixels first. Low: what the map marks is needed."),
    "road": ("Removal, filled in (ROAD)", "How much more the strongest pixels matter than the weakest, removed without leaving holes."),
    "adcc": ("Coherency, complexity and drop in one", "Harmonic mean of three metrics; 1 is a stable, small map that keeps the prediction."),
    "coherency": ("Same map for the marked part", "Whether the map stays the same when only the marked part is shown. 1: the same."),
    "complexity_l1": ("Mean of the map", "How much of the image the map covers."),
    "max_sensitivity": ("Change under small noise", "The largest relative change of the map under invisible noise. 0: none."),
    "infidelity": ("Wrong about what squares matter", "Error when the map predicts how much a hidden square lowers the confidence. 0: none."),
    "single_deletion_rho": ("Ranks the parts as hiding them does", "Whether the parts of the image that the map marks are those without which the class's logit falls most. 1: the same order. For networks that were trained on images with a part hidden."),
    "entropy": ("Spread of the mass (entropy)", "High: mass everywhere. Low: mass in one place."),
    "gini": ("Concentration (Gini)", "0: the same everywhere. Near 1: all mass in one point."),
    "border_share": ("Mass at the border", "Share of the map's mass in the outer tenth of the image on each side. An even map has 0.36 there."),
    "centroid_x": ("Centre, left to right", "0 is the left edge, 0.5 the middle, 1 the right edge."),
    "centroid_y": ("Centre, top to bottom", "0 is the top edge, 0.5 the middle, 1 the bottom edge."),
    "spread": ("Distance from the centre", "How far the mass lies from its own centre, in image diagonals."),
    "n_components": ("Separate spots", "Number of separate strong regions."),
    "top_area": ("Size of the strong part", "Share of the image above the map's own threshold."),
    "layer_agreement": ("Blocks agree", "Whether the network's blocks point to the same places. 1: the same order of pixels in all."),
    "label_overlap": ("Overlap of the maps for label and prediction", "Where the prediction is wrong: IoU of the strongest regions of the maps for the label and for the prediction."),
    "random_model_spearman": ("Map of a randomised network", "Rank correlation with the map after all weights were drawn anew. Near 0: the maps depend on what was learned."),
}  # fmt: skip

LOCALISATION = ("ebpg", "bbox", "miou", "pointing_hit", "relevance_rank_accuracy", "iou_half", "bbox_iou_half")
FAITHFULNESS = (
    "drop_pct", "increase", "average_gain_pct", "insertion_auc", "deletion_auc", "road", "adcc", "coherency", "infidelity",
    "single_deletion_rho", "max_sensitivity", "random_model_spearman", "ins_iou", "del_iou",
)  # fmt: skip
GROUPS = (
    ("On the object?", "Where the data set marks the object, these say whether the map lies on it.", LOCALISATION),
    ("Does the map show what the network uses?", "These hide or reveal what the map marks and watch the network's answer, or ask whether the map can be relied on.", FAITHFULNESS),
)  # fmt: skip
SHAPES = (
    "What do the maps look like?",
    "Shapes and places, to sort and search by; what is good here depends on the images.",
)
BETTER = {"higher": "higher is better", "lower": "lower is better"}


def name_of(metric: str) -> str:
    """A short name for people; the column's own where nobody wrote one."""
    return WORDS[metric][0] if metric in WORDS else metric


def sentence_of(metric: str, fact: Mapping[str, Any]) -> str:
    """What it asks; for a metric of others the first line of its formula."""
    if metric in WORDS:
        return WORDS[metric][1]
    return str(fact.get("formula") or fact.get("definition") or "").strip().partition("\n")[0]


def grouped(metrics: tuple[str, ...]) -> list[tuple[str, str, list[str]]]:
    """Title, sentence and metrics of every group that has some, in the groups' order; what is the same number twice once."""
    known = {name for _, _, names in GROUPS for name in names}
    twice = {"relevance_rank_accuracy"} if "bbox" in metrics else set()
    groups = [
        (title, text, [name for name in names if name in metrics and name not in twice])
        for title, text, names in GROUPS
    ]
    groups.append((*SHAPES, [name for name in metrics if name not in known]))
    return [group for group in groups if group[2]]
