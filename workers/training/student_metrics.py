"""Metrics of a student's maps beside its teacher's on the same images: what correlation with the teacher does not say."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ...engine.given_maps import evaluate_maps
from .agreement import resized

INSERTION, EBPG = "insertion_auc", "ebpg"
MEASURED = 64
"""Held-out images whose maps are measured, at most: insertion takes some dozens of forward passes for each map."""


def map_metrics(
    model: nn.Module, image: Tensor, target: int, maps: Mapping[str, Tensor], truth: Tensor | None
) -> dict[str, float]:
    """Insertion of several maps of one image and, where the object is known, their energy on it (EBPG).

    Args:
        model: The classifier, in eval mode; left as it came.
        image: `(channel, height, width)`, network input.
        target: The explained class.
        maps: By name, `(h, w)` in [0, 1].
        truth: `(height, width)`, True on the object; None where the data set says nothing.

    Returns:
        By `NAME_METRIC`; a metric that is not defined for a map is left out.
    """
    names = [INSERTION] if truth is None else [INSERTION, EBPG]
    values: dict[str, float] = {}
    for name, own in maps.items():
        whole = resized(own[None], (image.shape[1], image.shape[2])).clamp(0, 1)
        measured = evaluate_maps(
            model, image[None], whole, [target], metrics=names, truth=None if truth is None else truth[None]
        )
        values |= {f"{name}_{metric}": float(column[0]) for metric, column in measured.values.items()}
    return {name: value for name, value in values.items() if value == value}
