"""Metrics of maps that somebody brings: other tools' or one's own, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .. import statuses
from ..errors import SettingsError
from .explainer import Explainer
from .explanation import Explanation, check_target
from .methods.rise import RISE
from .metrics import METRICS, spelt_out
from .metrics.evaluate import find_metric
from .session import ExplainSession
from .targets import target_list


@dataclass(eq=False)
class MapMetrics:
    """Metrics of a batch of maps."""

    values: dict[str, Float[Tensor, " batch"]]
    """By metric, float64 on the CPU; NaN where a metric is not defined for a map or asks for ground truth that is not there."""
    targets: Int[Tensor, " batch"]
    predictions: Int[Tensor, " batch"]
    confidences: Float[Tensor, " batch"]
    """The model's confidence in the target, in [0, 1]."""
    statuses: list[str]
    errors: list[str | None]
    """Why a status is not `ok`."""
    n_forwards: list[int]

    def means(self) -> dict[str, float]:
        """Mean of every metric over the maps for which it is defined; metrics without any are left out."""
        finite = {name: values[~values.isnan()] for name, values in self.values.items()}
        return {name: float(values.mean()) for name, values in finite.items() if len(values)}

    def to_pandas(self) -> Any:
        """One row per map."""
        import pandas as pd  # here, because it takes a second to import

        return pd.DataFrame(
            {
                "target": self.targets.tolist(),
                "prediction": self.predictions.tolist(),
                "confidence": self.confidences.tolist(),
                "status": self.statuses,
                "error": self.errors,
                **{name: values.tolist() for name, values in self.values.items()},
            }
        )


def evaluate_maps(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    maps: Float[Tensor, "batch height width"],
    targets: Int[Tensor, " batch"] | Sequence[int] | int | None = None,
    *,
    metrics: str | Sequence[str] = ("paper",),
    truth: Bool[Tensor, "batch height width"] | None = None,
    labels: Sequence[int | None] | None = None,
    seeds: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    explainer: Explainer | None = None,
) -> MapMetrics:
    """Measure maps, whoever made them: drop, insertion, deletion, EBPG and the others of `heatlas metrics`.

    Args:
        model: Classifier of `(batch, channel, height, width)` to logits `(batch, class)`; left as it came.
        images: In network-input space, on the model's device.
        maps: One per image, of its size, in [0, 1]; larger is more important. Bring others to that range first, such as by
            `maps.relu() / maps.amax((1, 2), keepdim=True)`.
        targets: Class index per image, one for all, or None for the predicted classes.
        metrics: Names, or presets (`paper`, `standard`, `full`).
        truth: True on the object, per image; metrics that need it are NaN without.
        labels: The images' classes, which some metrics compare with the prediction; None where there is none.
        seeds: Stands for each image in random draws, at least 0; the place in the batch by default.
        seed: Of the metrics' random draws, at least 0.
        batch_size: Masked images per forward pass, at least 1.
        explainer: The method that made the maps, such as `heatlas.GradCAM(model)`, for metrics that explain further inputs
            (`max_sensitivity` and the like).

    Raises:
        SettingsError: When a metric is unknown or needs an explainer that is not given, shapes do not agree, or values leave [0, 1].
        TargetError: When a target is no class of the model.
    """
    names = [find_metric(name).name for name in spelt_out([metrics] if isinstance(metrics, str) else metrics)]
    check_tensors(images, maps, truth)
    refuse_unmeasurable(names, given=explainer is not None)
    maker = RISE(model, batch_size=batch_size) if explainer is None else explainer
    count = len(images)
    own = one_for_each("seeds", seeds if seeds is not None else range(count), count)
    classes = one_for_each("labels", labels if labels is not None else [None] * count, count)
    session = ExplainSession(maker, names, seed=seed)
    explained = []
    wanted = target_list(targets, count)
    for target in wanted:
        if target is not None:
            check_target(target, maker.class_count(images[0]))
    said = maker.read_logits(images, wanted, list(own))
    for place, (image, map_, output) in enumerate(zip(images, maps, said, strict=True)):
        failure = output.failure
        given = Explanation(
            statuses.OK if failure is None else failure[0],
            None if failure is None else failure[1],
            output.prediction,
            output.target,
            output.confidence,
            output.logit,
            map=map_.float() if failure is None else None,
        )
        explained += session.push(
            place,
            image,
            truth=None if truth is None else truth[place],
            label=classes[place],
            sample_seed=own[place],
            given=given,
        )
    explained += session.finish()
    nothing = float("nan")
    return MapMetrics(
        values={
            name: torch.tensor(
                [nothing if row.metrics[name] is None else row.metrics[name] for row in explained], dtype=torch.float64
            )
            for name in names
        },
        targets=torch.tensor([-1 if row.target is None else row.target for row in explained]),
        predictions=torch.tensor([-1 if row.prediction is None else row.prediction for row in explained]),
        confidences=torch.tensor([row.confidence or 0.0 for row in explained]),
        statuses=[row.status for row in explained],
        errors=[row.error for row in explained],
        n_forwards=[row.n_forwards for row in explained],
    )


def check_tensors(images: Tensor, maps: Tensor, truth: Tensor | None) -> None:
    """Refuse tensors that do not belong together.

    Raises:
        SettingsError: Naming shapes or values and what they must be.
    """
    if images.ndim != 4 or len(images) == 0:
        raise SettingsError(
            f"images must be (batch, channel, height, width) with a batch of at least 1, got {tuple(images.shape)}"
        )
    wanted = (len(images), *images.shape[2:])
    for name, given in (("maps", maps), ("truth", truth)):
        if given is not None and tuple(given.shape) != wanted:
            raise SettingsError(f"{name} must be {wanted} like the images, got {tuple(given.shape)}")
    low, high = float(maps.min()), float(maps.max())
    if not (low >= 0 and high <= 1):
        raise SettingsError(
            f"maps must lie in [0, 1], got {low:g} to {high:g}; bring them there first, such as by "
            "maps.relu() / maps.amax((1, 2), keepdim=True)"
        )


def refuse_unmeasurable(names: Sequence[str], *, given: bool) -> None:
    """Refuse metrics that ask for more than the maps.

    Raises:
        SettingsError: Naming them.
    """
    layered = [name for name in names if METRICS[name].layers]
    if layered:
        raise SettingsError(
            f"{', '.join(layered)} compares SISE's block maps, which are not among these tensors; leave it out"
        )
    further = [name for name in names if METRICS[name].explains]
    if further and not given:
        raise SettingsError(
            f"{', '.join(further)} explains further inputs: give explainer=, the method that made the maps, or leave it out"
        )


def one_for_each(name: str, values: Sequence[Any], count: int) -> list[Any]:
    if len(values) != count:
        raise SettingsError(f"{name} must be one for each of the {count} images, got {len(values)}")
    return list(values)
