"""A method on the packed scorer as a function of a batch, as other methods and Python callers want it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ... import statuses
from ..explainer import Explainer, finish
from ..explanation import Explanation
from ..scoring.scoring_options import Scoring
from .protocol import Cost, ExplainFunction, MethodMaps, Pack, method


class OneByOne:
    """Explains the images of a batch, all of whose masks share the scorer's batches."""

    def __init__(self, explainer: Explainer):
        self._explainer = explainer

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Zeros where an image gives no map, NaN where it breaks."""
        explainer = self._explainer
        try:
            pending = [
                explainer.begin(image, target, seed)
                for image, target, seed in zip(images, targets.tolist(), seeds, strict=True)
            ]
            finish(explainer, *pending)
        except BaseException:
            explainer.reset()
            raise
        found = [explainer.complete(one, keep_layers=False) for one in pending]
        return MethodMaps(torch.stack([shown(one, images) for one in found]), mean_cost(found))


def shown(one: Explanation, images: Tensor) -> Float[Tensor, "height width"]:
    blank = torch.nan if one.status == statuses.NON_FINITE else 0.0
    return torch.full(images.shape[2:], blank, device=images.device) if one.map is None else one.map


def mean_cost(found: Sequence[Explanation]) -> Cost:
    """Rounded to whole passes."""
    forwards, backwards = sum(one.n_forwards for one in found), sum(one.n_backwards for one in found)
    return Cost(round(forwards / len(found)), round(backwards / len(found)))


def packed_method(**declaration: Any) -> Callable[[Pack], Pack]:
    """Register a method on the packed scorer, with the fields of `Method` but `build` and `packed`."""

    def register(pack: Pack) -> Pack:
        def build(model: nn.Module, settings: Any) -> ExplainFunction:
            return OneByOne(pack(model, settings, Scoring()))

        method(packed=pack, **declaration)(build)
        return pack

    return register
