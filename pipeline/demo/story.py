"""Compare the demo's queues and clusters with the planted faults: the shortcut and the wrong labels.

Confidence alone is measured beside the recipe, on the same images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .dataset import SHORTCUT_CLASS
from .findings import percent

Truth = Mapping[str, Mapping[str, str]]
"""The demo's manifest by id."""


@dataclass(frozen=True)
class LabelNoiseResult:
    """How well wrong labels were found."""

    images: int
    planted: int
    listed: int
    """Images in the queue."""
    listed_wrong: int
    """Images in the queue whose label is wrong."""
    baseline_wrong: int
    """Wrong labels among as many images as are planted, those with the least confidence in their label."""


def label_noise_found(
    rows: Sequence[Mapping[str, Any]], queue: Sequence[Mapping[str, Any]], truth: Truth
) -> LabelNoiseResult:
    """Compare the queue of `label_suspicion` with the planted labels, and with confidence alone: 1 - p(label).

    Args:
        rows: Of the store: `id`, `target`, `label`, `prediction`, `confidence`; where the label is not predicted it has a row of its own.
        queue: `id` of every image in it.
        truth: `label` and `true_label` by id.
    """
    of_label = {row["id"]: row["confidence"] for row in rows if row["target"] == row["label"]}
    ids = sorted({row["id"] for row in rows})
    wrong = {identity for identity in ids if truth[identity]["label"] != truth[identity]["true_label"]}
    least_first = sorted(ids, key=lambda identity: of_label.get(identity) or 0.0)
    planted = len(wrong)
    listed = [row["id"] for row in queue]
    return LabelNoiseResult(
        len(ids), planted, len(listed), len(wrong.intersection(listed)), len(wrong.intersection(least_first[:planted]))
    )


def noise_lines(noise: LabelNoiseResult) -> list[str]:
    """The comparison in words."""
    if not noise.planted:
        return [f"Wrong labels: none is planted among these {noise.images} images, label_suspicion lists {noise.listed}; "
                "explain more images to see them found."]  # fmt: skip
    return [
        f"Wrong labels: {noise.planted} of {noise.images} images have a label that is not theirs "
        f"({percent(noise.planted / noise.images)}). label_suspicion lists {noise.listed}, of which {noise.listed_wrong} are wrong; "
        f"of the {noise.planted} images with the least confidence in their label, {noise.baseline_wrong} are."
    ]


def shortcut_lines(queue: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the shortcut queue names."""
    if not queue:
        return ["Shortcut queue: empty, no correct prediction is off-object."]
    classes = Counter(row["label"] for row in queue).most_common()
    named = ", ".join(f"{count} {name}" for name, count in classes)
    return [
        f"Shortcut queue: {len(queue)} images ({named}); the first is {queue[0]['id']}: {queue[0]['reason'].rstrip('.')}."
    ]


def cluster_lines(
    clusters: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]], truth: Truth
) -> list[str]:
    """Whether the sticker has a cluster of its own."""
    if not clusters:
        return []
    first = clusters[0]
    inside = [row["id"] for row in members if (row["class"], row["cluster"]) == (first["class"], first["cluster"])]
    marked = sum(truth[identity]["shortcut"] == "1" for identity in inside)
    everywhere = sum(truth[row["id"]]["shortcut"] == "1" for row in members)
    return [
        f"First cluster: {first['reason']}. With the sticker: {marked} of these {len(inside)} images "
        f"(of {everywhere} that carry it{'' if first['class_name'] == SHORTCUT_CLASS else ', whose class is ' + SHORTCUT_CLASS})."
    ]
