"""Explanation agreement of a model and its edge version on the same masks, beside the noise floor of the masks' seed.

Forward passes only, because a quantised graph has no gradients: both models score the same masked images (RISE), so their maps differ by the
confidences alone. How far the base model's map differs from itself under other masks is the noise: less agreement than that is drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...engine.agreement import MapAgreement, agreement_of
from ...engine.random_mask_maps import Network, confidences_of, rise_maps
from ...engine.scoring.confidence import Confidence
from ...engine.scoring.object_scenes import resized_to
from ...workers.images.decode import Prepared
from ...workers.samples import Sample

FLOOR_PERCENTILE = 5
"""Of the base model's agreement with itself."""


@dataclass(frozen=True)
class DriftRow:
    """One image under both models."""

    id: str
    label: int | None
    prediction: int
    edge_prediction: int
    confidence: float
    edge_confidence: float
    """In the base model's prediction, like `confidence`."""
    agreement: MapAgreement
    """Of the two models' maps for the base model's prediction, from the same masks."""
    noise: MapAgreement
    """Of the base model's map with itself, from another seed's masks."""
    d_ebpg: float | None = None
    """Share of the edge model's map on the marked object less that of the base model's; None where nothing is marked."""
    mask_iou: tuple[float, float] | None = None
    """Of dense models, base and edge: IoU of the pixels that have the label's class with what is marked; None where nothing is."""
    same_pixels: float | None = None
    """Of dense models: share of the pixels to which both give the same class."""
    edge_finite: bool = True
    """Whether the edge model's output for the image is finite."""

    @property
    def same_prediction(self) -> bool:
        return self.edge_finite and self.prediction == self.edge_prediction

    @property
    def is_judged(self) -> bool:
        """Whether the base model's map says something, so that another can be compared with it."""
        return not math.isnan(self.noise.iou)

    @property
    def is_lost(self) -> bool:
        """The edge model gives nothing finite, or a map that says nothing where the base model's says something."""
        return not self.edge_finite or (self.same_prediction and self.is_judged and math.isnan(self.agreement.iou))

    def is_drift(self, floor: float) -> bool:
        """The prediction stays, but the strongest regions agree less than another seed alone would explain; or the edge model's map is lost."""
        return self.is_lost or (self.same_prediction and self.agreement.iou < floor)

    def record(self, floor: float) -> dict[str, Any]:
        """As a row of `agreement.parquet`."""
        numbers = {
            "spearman": self.agreement.spearman, "iou": self.agreement.iou, "wasserstein": self.agreement.wasserstein,
            "noise_spearman": self.noise.spearman, "noise_iou": self.noise.iou, "noise_wasserstein": self.noise.wasserstein,
        }  # fmt: skip
        base_iou, edge_iou = self.mask_iou or (None, None)
        return {
            "id": self.id, "label": self.label, "prediction": self.prediction, "edge_prediction": self.edge_prediction,
            "same_prediction": self.same_prediction, "confidence": self.confidence, "edge_confidence": self.edge_confidence if math.isfinite(self.edge_confidence) else None,
            **{name: None if math.isnan(value) else value for name, value in numbers.items()}, "d_ebpg": self.d_ebpg,
            "edge_finite": self.edge_finite, "mask_iou": base_iou, "edge_mask_iou": edge_iou, "same_pixels": self.same_pixels, "drift": self.is_drift(floor),
        }  # fmt: skip


def measure_drift(
    images: Iterable[tuple[Sample, Prepared]],
    base: Network,
    edge: Network,
    *,
    confidence: Confidence,
    masks: int,
    batch_size: int,
) -> Iterator[DriftRow]:
    """Compare the two models image by image; three times `masks` forward passes an image, two of them by the base model."""
    for place, (sample, prepared) in enumerate(images):
        image = prepared.image
        outputs = [network(image[None]) for network in (base, edge)]
        predictions = [int(confidence.ranking(output).argmax()) for output in outputs]
        target = predictions[0]
        scenes = [None if confidence.scene is None else confidence.scene(output) for output in outputs]

        def maps(seed: int, *networks: Network, image=image, target=target, scene=scenes[0]) -> list[torch.Tensor]:
            return rise_maps(
                image, target, seed, networks, confidence=confidence, scene=scene, count=masks, batch_size=batch_size
            )

        first, second = maps(2 * place, base, edge)
        [again] = maps(2 * place + 1, base)
        own, others = (float(confidences_of(output, target, confidence, scenes[0])) for output in outputs)
        yield DriftRow(
            sample.id, sample.label, target, predictions[1], own, others, agreement_of(first, second), agreement_of(first, again),
            _moved_share(first, second, prepared.truth),
            _mask_ious(scenes, target if sample.label is None else sample.label, prepared.truth), _same_pixels(scenes),
            bool(outputs[1].isfinite().all()),
        )  # fmt: skip


def noise_floor(rows: Sequence[DriftRow]) -> float:
    """The 5th percentile of the base model's agreement with itself; below it an edge map counts as drifted. NaN where none is known."""
    values = [row.noise.iou for row in rows if not math.isnan(row.noise.iou)]
    return float(np.percentile(values, FLOOR_PERCENTILE)) if values else math.nan


def _moved_share(first: torch.Tensor, second: torch.Tensor, truth: torch.Tensor | None) -> float | None:
    if truth is None or not truth.any() or float(first.sum()) <= 0 or float(second.sum()) <= 0:
        return None
    before, after = (float(image_map[truth].sum() / image_map.sum()) for image_map in (first, second))
    return after - before if math.isfinite(after) else None


def _mask_ious(
    scenes: Sequence[torch.Tensor | None], label: int, truth: torch.Tensor | None
) -> tuple[float, float] | None:
    if truth is None or not truth.any():
        return None
    own = [
        resized_to(scene, truth) == label for scene in scenes if scene is not None
    ]  # logits may be coarser than the image
    ious = [float((mask & truth).sum() / (mask | truth).sum()) for mask in own]
    return (ious[0], ious[1]) if ious else None


def _same_pixels(scenes: Sequence[torch.Tensor | None]) -> float | None:
    first, second = scenes
    return None if first is None or second is None else float((first == second).double().mean())
