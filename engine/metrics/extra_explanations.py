"""Extra explanations of one image, for metrics that compare its map with others: of x * S, of x + noise, of another class.

They go through the same explainer as the image itself, and their masks share its batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ... import statuses
from ...errors import TargetError
from ..explainer import Explainer
from ..requests import Steps, Together
from . import ExtraExplanations, Subject


@dataclass(frozen=True, eq=False)
class ExtraMaps:
    """The explanations that one `ExtraExplanations` asks for."""

    maps: Float[Tensor, "variant height width"]
    """NaN where an explanation was not asked for or has no map."""
    n_forwards: int
    n_backwards: int


def explain_more(explainer: Explainer, wanted: ExtraExplanations, subject: Subject) -> Steps[ExtraMaps]:
    """Explain what a metric asks for, by the image's own draws; its own map stands in for its own image and target.

    A label that is no class of the model costs the forward that finds out, and the metric is not defined.
    """
    maps = torch.full((wanted.count, *subject.map.shape), torch.nan, device=subject.map.device)
    n_forwards, begun = 0, dict[int, Steps]()
    for place, (image, target) in enumerate(wanted.make(subject)):
        if image is subject.image and target == subject.target:
            maps[place] = subject.map
            continue
        try:
            begun[place] = explainer.start(image, target, subject.sample)
        except TargetError:
            n_forwards += 1
    explanations = yield Together(list(begun.values()))
    for place, explanation in zip(begun, explanations, strict=True):
        if explanation.status == statuses.OK and explanation.map is not None:
            maps[place] = explanation.map
    return ExtraMaps(
        maps,
        n_forwards + sum(explanation.n_forwards for explanation in explanations),
        sum(explanation.n_backwards for explanation in explanations),
    )
