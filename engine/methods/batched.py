"""A batch method in a session: collects images, explains them in batches of one size, and turns NaN and flat maps into statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import statuses
from ...errors import SettingsError
from ..explanation import Explanation, Logits, check_target
from ..layers.eval_mode import untouched
from ..layers.outputs import logits_of
from ..scoring.budget import EXACT
from ..scoring.precision import autocast_dtype
from ..scoring.scoring_options import Scoring
from .protocol import Method, MethodMaps


@dataclass(eq=False)
class Waiting:
    """An image that waits for its batch, or is explained."""

    image: Float[Tensor, "channel height width"]
    target: int | None
    seed: int
    found: Explanation | None = None

    @property
    def done(self) -> bool:
        return self.found is not None


class Batched:
    """Drives `Method.build`'s method: see `Explainer`.

    Every batch has the same size, the last filled up with copies of its last image, so that a row's bits do not depend on its
    neighbours. One forward pass beside the method's own finds the predicted class and the scores.

    Args:
        declared: The method.
        model: Classifier of `(batch, channel, height, width)` to `(batch, class)` logits.
        settings: Of the method.
        scoring: Batch and precision; the scorer is for metrics.

    Raises:
        ModelError: When the method cannot explain the model.
        SettingsError: When there is a budget.
    """

    keep_layers = False

    def __init__(self, declared: Method, model: nn.Module, settings: Any, scoring: Scoring):
        if scoring.budget != EXACT:
            raise SettingsError(
                f"method {declared.name} leaves no masks out, so budget must be {EXACT}, got {scoring.budget!r}"
            )
        self.model = model
        self.declared = declared
        self.settings = settings
        self.scoring = scoring
        self.scorer = scoring.scorer(model)
        self.images = max(1, min(declared.images, scoring.batch_size, scoring.images or declared.images))
        with untouched(model):
            self._method = declared.build(model, settings)
        self._waiting: list[Waiting] = []
        self._classes: int | None = None

    def begin(self, image: Float[Tensor, "channel height width"], target: int | None, seed: int = 0) -> Waiting:
        """Take an image in; explains a batch where it is full.

        Raises:
            TargetError: When `target` is no class of the model.
        """
        if target is not None:
            check_target(target, self._class_count(image))
        if self._waiting and self._waiting[0].image.shape != image.shape:
            self._explain()
        one = Waiting(image, target, seed)
        self._waiting.append(one)
        if len(self._waiting) == self.images:
            self._explain()
        return one

    def advance(self, pending: Waiting) -> bool:
        """Nothing: a batch is explained at once."""
        return False

    def flush(self) -> None:
        """Explain what waits, and score what is queued."""
        self._explain()
        self.scorer.flush()

    def reset(self) -> None:
        """Forget everything in flight."""
        self._waiting.clear()
        self.scorer.reset()

    def complete(self, pending: Waiting, *, keep_layers: bool | None = None) -> Explanation:
        """What was found; there are no block maps to keep."""
        if pending.found is None:
            raise RuntimeError("an image was asked for before its batch was explained")
        return pending.found

    def over(self, model: nn.Module) -> Batched:
        """The same method over another model, which is scored as it is."""
        return Batched(self.declared, model, self.settings, replace(self.scoring, fold_bn=False, compile=False))

    def extra_shapes(self, image: Float[Tensor, "channel height width"]) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the extras for one image of inputs like this."""
        if not self.declared.extras:
            return {}
        if hasattr(self._method, "extra_shapes"):
            return self._method.extra_shapes(image)  # type: ignore[attr-defined]
        found = self._maps(image[None], [0], [0])
        return {name: tuple(found.extras[name].shape[1:]) for name in self.declared.extras}

    def _class_count(self, image: Tensor) -> int:
        if self._classes is None:
            self._classes = self._logits(torch.zeros_like(image)[None]).shape[1]
        return self._classes

    def _explain(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        with torch.inference_mode(False):  # a caller may be in inference mode, which records no gradient
            self._explain_batch(waiting)

    def _explain_batch(self, waiting: list[Waiting]) -> None:
        filled = waiting + [waiting[-1]] * (self.images - len(waiting))
        images = torch.stack([one.image for one in filled])
        logits = [
            Logits.of(row, one.target, self.scorer.score) for row, one in zip(self._logits(images), filled, strict=True)
        ]
        found = self._maps(images, [one.target or 0 for one in logits], [one.seed for one in filled])
        for place, one in enumerate(waiting):
            one.found = self._explanation(logits[place], found, place)

    def _logits(self, images: Tensor) -> Float[Tensor, "batch class"]:
        with untouched(self.model), torch.no_grad(), self._autocast(images):
            return logits_of(self.model(images)).float()

    def _maps(self, images: Tensor, targets: Sequence[int], seeds: Sequence[int]) -> MethodMaps:
        with untouched(self.model), self._autocast(images):
            found = self._method.explain(images, torch.tensor(targets, device=images.device), seeds)
        expected = (len(images), *images.shape[2:])
        if tuple(found.maps.shape) != expected:
            raise RuntimeError(
                f"method {self.declared.name} gave maps of shape {tuple(found.maps.shape)}, not {expected}"
            )
        if missing := self.declared.extras.keys() ^ found.extras.keys():
            raise RuntimeError(
                f"method {self.declared.name} and its declaration differ in extras: {', '.join(sorted(missing))}"
            )
        return found

    def _autocast(self, images: Tensor) -> torch.autocast:
        dtype = autocast_dtype(self.scoring.precision, images.device)
        return torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None)

    def _explanation(self, logits: Logits, found: MethodMaps, place: int) -> Explanation:
        heat = found.maps[place].detach().float()
        status, error = self._verdict(logits, heat)
        one = logits.explanation(status, error)
        one.n_forwards, one.n_backwards = 1 + found.cost.forwards, found.cost.backwards
        if status == statuses.OK:
            one.map = heat.clamp(0, 1)
            one.extras = {name: values[place].detach().float() for name, values in found.extras.items()}
        return one

    def _verdict(self, logits: Logits, heat: Float[Tensor, "height width"]) -> tuple[str, str | None]:
        if not logits.finite:
            return statuses.NON_FINITE, "the model's output for the image is not finite"
        low, high = (float(end) for end in heat.aminmax())
        if not bool(heat.isfinite().all()):
            return statuses.NON_FINITE, "the map is not finite"
        if high <= low:
            return statuses.CONSTANT_MAP, "the map gives the same value to every pixel"
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            return (
                statuses.EXPLAIN_ERROR,
                f"method {self.declared.name} gave values from {low:g} to {high:g}, not in [0, 1]",
            )
        return statuses.OK, None


TOLERANCE = 1e-3
"""How far rounding may carry a value out of [0, 1]."""
