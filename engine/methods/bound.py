"""A method bound to a model, as a Python caller uses it: `heatlas.method("rise", model, masks=1000).explain(images)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import SettingsError, did_you_mean
from ..explainer import Explainer, finish
from ..explanation import Explanation
from ..scoring.scoring_options import Scoring
from ..targets import target_list
from .build_explainer import make_explainer
from .registry import find_method


@dataclass(eq=False)
class MethodResult:
    """Explanations of a batch. Rows whose status is not `ok` hold zeros; nothing is ever NaN."""

    maps: Float[Tensor, "batch height width"]
    """In [0, 1], float32."""
    targets: Int[Tensor, " batch"]
    """Classes that were explained; -1 where the model's output is not finite and none was given."""
    predictions: Int[Tensor, " batch"]
    scores: Float[Tensor, " batch"]
    """Softmax probability of the target."""
    statuses: list[str]
    errors: list[str | None]
    """Why a status is not `ok`."""
    extras: dict[str, list[Tensor | None]]
    """What else the method gives, for each image; None where there is no map."""
    n_forwards: list[int]
    n_backwards: list[int]


class BoundMethod:
    """Explains batches of images with one method over one model.

    Args:
        name: Of the method.
        explainer: The method, bound.
    """

    def __init__(self, name: str, explainer: Explainer):
        self.name = name
        self._explainer = explainer

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"] | Sequence[int] | int | None = None,
        *,
        seeds: Sequence[int] | None = None,
    ) -> MethodResult:
        """Explain a batch; the result does not depend on how images are batched.

        Args:
            images: In network-input space, on the model's device.
            targets: Class index per image, one for all, or None for the predicted classes.
            seeds: Stands for each image in random draws, at least 0; the place in the batch by default.

        Raises:
            TargetError: When a target is no class of the model.
            SettingsError: When the images are no batch, or the seeds not one for each.
        """
        if images.ndim != 4 or len(images) == 0:
            raise SettingsError(
                f"images must be (batch, channel, height, width) with a batch of at least 1, got {tuple(images.shape)}"
            )
        own = list(range(len(images))) if seeds is None else list(seeds)
        if len(own) != len(images):
            raise SettingsError(f"seeds must be one for each of the {len(images)} images, got {len(own)}")
        wanted = target_list(targets, len(images))
        explainer = self._explainer
        try:
            pending = [explainer.begin(*one) for one in zip(images, wanted, own, strict=True)]
            finish(explainer, *pending)
        except BaseException:
            explainer.reset()
            raise
        return stacked([explainer.complete(one, keep_layers=False) for one in pending], images)

    def __call__(self, *arguments: Any, **named: Any) -> MethodResult:
        """As `explain`."""
        return self.explain(*arguments, **named)


def bind_method(name: str, model: nn.Module, *, scoring: Scoring | None = None, **settings: Any) -> BoundMethod:
    """One of the methods of `heatlas methods` over a model.

    Args:
        name: Of the method.
        model: A classifier; it is left as it came.
        scoring: Batch, number format and meaning of scores.
        **settings: Of the method; the defaults otherwise.

    Raises:
        SettingsError: When there is no such method or setting, or a value is out of its range.
        ModelError: When the method cannot explain the model.
    """
    declared = find_method(name)
    known = list(declared.settings.__dataclass_fields__)
    for one in settings:
        if one not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise SettingsError(f"method {name} has no setting {one!r}{did_you_mean(one, known)}; {has}")
    return BoundMethod(name, make_explainer(name, model, declared.settings(**settings), scoring))


def stacked(found: Sequence[Explanation], images: Tensor) -> MethodResult:
    """Explanations side by side; zeros where a status is not `ok`."""
    device = images.device
    blank = torch.zeros(images.shape[2:], device=device)
    names = list(dict.fromkeys(name for one in found for name in one.extras))
    return MethodResult(
        maps=torch.stack([blank if one.map is None else one.map for one in found]),
        targets=torch.tensor([-1 if one.target is None else one.target for one in found], device=device),
        predictions=torch.tensor([-1 if one.prediction is None else one.prediction for one in found], device=device),
        scores=torch.tensor([one.score or 0.0 for one in found], device=device),
        statuses=[one.status for one in found],
        errors=[one.error for one in found],
        extras={name: [one.extras.get(name) for one in found] for name in names},
        n_forwards=[one.n_forwards for one in found],
        n_backwards=[one.n_backwards for one in found],
    )
