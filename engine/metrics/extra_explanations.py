"""Further explanations of one image, for metrics that compare its map with others: of x * S, of x + noise, of another class.

They go through the same explainer and the same packed scorer as the image itself.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ... import statuses
from ...errors import TargetError
from ..explainer import Explainer
from . import ExtraExplanations, Subject


class FurtherMaps:
    """The explanations that one `Explains` asks for, in flight or done.

    Args:
        explainer: Explains them, by the image's own draws.
        wanted: What to explain.
        subject: The image whose own map stands in where its own image and target are asked for.
    """

    def __init__(self, explainer: Explainer, wanted: ExtraExplanations, subject: Subject):
        self.n_forwards = 0
        self.n_backwards = 0
        self._explainer = explainer
        self._seed = subject.sample
        self._maps = torch.full((wanted.count, *subject.map.shape), torch.nan, device=subject.map.device)
        self._pending: list[tuple[int, Any]] = []
        for place, (image, target) in enumerate(wanted.make(subject)):
            if image is subject.image and target == subject.target:
                self._maps[place] = subject.map
            else:
                self._begin(place, image, target)

    @property
    def done(self) -> bool:
        """Whether every explanation has left the scorer; takes in those that have."""
        self._settle()
        return not self._pending

    @property
    def maps(self) -> Float[Tensor, "variant height width"]:
        """The maps; NaN where an explanation was not asked for or has no map."""
        return self._maps

    def _begin(self, place: int, image: Tensor, target: int) -> None:
        try:
            self._pending.append((place, self._explainer.begin(image, target, self._seed)))
        except TargetError:
            self.n_forwards += (
                1  # a label that is no class of the model: the map stays NaN, so the metric is not defined
            )
        self._settle()

    def advance(self) -> None:
        """Queue what is next of those under a budget, and take in those that are scored."""
        while sum(self._explainer.advance(pending) for _, pending in self._pending):
            pass
        self._settle()

    def _settle(self) -> None:
        """Turn what is scored into maps at once, because a pending image keeps its feature maps in memory."""
        waiting = []
        for place, pending in self._pending:
            if pending.done:
                self._take(place, pending)
            else:
                waiting.append((place, pending))
        self._pending = waiting

    def _take(self, place: int, pending: Any) -> None:
        found = self._explainer.complete(pending, keep_layers=False)
        self.n_forwards += found.n_forwards
        self.n_backwards += found.n_backwards
        if found.status == statuses.OK and found.map is not None:
            self._maps[place] = found.map
