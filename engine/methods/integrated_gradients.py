"""Integrated Gradients (Sundararajan et al., ICML 2017, arXiv 1703.01365)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from ..fill import baseline_of
from ..fill_kinds import BASELINES
from ..layers.outputs import logits_of, wide
from ..lazy_torch import torch
from .batch_method import BatchMethod, MethodMaps
from .cams import RawMaps
from .layer_gradients import target_logits
from .normalise import over_max
from .passes import differentiable, logits_without_graph, plain
from .protocol import Cost, method, require, require_one_of, setting
from .straight_path import Score, path_gradient

BASELINE_TEXT = "what stands for absence: zero (in network-input space), mean (of the image) or blur (of the image)"


def quadrature(steps: int) -> tuple[list[float], list[float]]:
    """Places in (0, 1) and weights, which add up to 1, that integrate polynomials of degree 2 steps - 1 exactly."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    return ((places + 1) / 2).tolist(), (weights / 2).tolist()


def cost(settings: Any) -> Cost:
    """A forward and a backward for every point of the path."""
    return Cost(settings.steps, settings.steps)


@method(
    name="integrated_gradients",
    summary="pixels times the mean gradient on the way from a baseline to the image",
    source="Sundararajan et al., ICML 2017, eq. 1",
    architecture="any",
    cost=cost,
    gradients=True,
    signed=True,
    resolution="input",
    dense=True,
)
class IntegratedGradients(BatchMethod):
    """(x - x') times the mean gradient of the target's logit on the way from x' to x (eq. 1), by Gauss-Legendre quadrature."""

    pixelwise = True
    """The raw map is at the input's resolution."""

    steps: int = setting(default=32, text="points of the path, at least 1: forwards and backwards per image")
    baseline: Literal["zero", "mean", "blur"] = setting(default="zero", text=BASELINE_TEXT)
    sign: Literal["positive", "absolute"] = setting(
        default="positive", text="what of the signed map is kept: positive (evidence for) or absolute"
    )

    def check(self) -> None:
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")
        require_one_of("baseline", self.baseline, BASELINES)
        require_one_of("sign", self.sign, ("positive", "absolute"))

    @property
    def raw_cost(self) -> Cost:
        """Passes of `raw`."""
        return Cost(self.steps + 1, self.steps)

    def raw(
        self, images: Float[torch.Tensor, "batch channel height width"], targets: Int[torch.Tensor, " batch"]
    ) -> RawMaps:
        """The signed attribution of every pixel, and the logits, which take one forward more."""
        return RawMaps(self.attribution(images, targets), logits_without_graph(self.model, images))

    def attribution(
        self, images: Float[torch.Tensor, "batch channel height width"], targets: Int[torch.Tensor, " batch"]
    ) -> Float[torch.Tensor, "batch height width"]:
        """Signed, summed over channels; over pixels it adds up to the logit of x less that of x' but for the quadrature."""
        scenes = self.scenes(images)
        with differentiable(self.model):
            images = plain(images)
            baseline = baseline_of(images, self.baseline)
            way, total = images - baseline, wide(torch.zeros_like(images))
            for place, weight in zip(*quadrature(self.steps), strict=True):
                total += weight * path_gradient(self._score(targets, scenes), baseline, way, place)[0]
        return (total * way).sum(dim=1).detach()

    def _score(self, targets: torch.Tensor, scenes: torch.Tensor | None) -> Score:
        return lambda point: target_logits(logits_of(self.model(point)), targets, scenes)

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Positive part, or absolute values, over the maximum; `seeds` are not used."""
        signed = self.attribution(images, targets)
        kept = signed.relu() if self.sign == "positive" else signed.abs()
        return MethodMaps(over_max(kept).float(), Cost(self.steps + self.scene_forwards, self.steps))
