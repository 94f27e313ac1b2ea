"""Integrated Gradients (Sundararajan et al., ICML 2017, arXiv 1703.01365)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..fill import baseline_of
from ..layers.outputs import logits_of
from .batch_settings import IntegratedGradientsSettings
from .cams import RawMaps
from .layer_gradients import target_logits, wide
from .normalise import over_max
from .passes import differentiable, logits_without_graph, plain
from .protocol import Cost, MethodMaps, method


class IntegratedGradients:
    """(x - x') times the mean gradient of the target's logit on the way from x' to x (eq. 1), by Gauss-Legendre quadrature.

    Every pass holds as many rows as there are images.
    """

    pixelwise = True
    """The raw map is at the input's resolution."""

    def __init__(self, model: nn.Module, settings: IntegratedGradientsSettings):
        self._model = model
        self._settings = settings
        self.cost = Cost(settings.steps, settings.steps)
        self.raw_cost = Cost(settings.steps + 1, settings.steps)

    def raw(self, images: Float[Tensor, "batch channel height width"], targets: Int[Tensor, " batch"]) -> RawMaps:
        """The signed attribution of every pixel, and the logits, which take one forward more."""
        return RawMaps(self.attribution(images, targets), logits_without_graph(self._model, images))

    def attribution(
        self, images: Float[Tensor, "batch channel height width"], targets: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch height width"]:
        """Signed, summed over channels; over pixels it adds up to the logit of x less that of x' but for the quadrature."""
        with differentiable(self._model):
            images = plain(images)
            baseline = baseline_of(images, self._settings.baseline)
            total = wide(torch.zeros_like(images))
            for place, weight in zip(*quadrature(self._settings.steps), strict=True):
                point = (baseline + place * (images - baseline)).requires_grad_()
                score = target_logits(logits_of(self._model(point)), targets)
                total += weight * torch.autograd.grad(score.sum(), point)[0]
        return (total * (images - baseline)).sum(dim=1).detach()

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Positive part, or absolute values, over the maximum; `seeds` are not used."""
        signed = self.attribution(images, targets)
        kept = signed.relu() if self._settings.sign == "positive" else signed.abs()
        return MethodMaps(over_max(kept).float(), self.cost)


def quadrature(steps: int) -> tuple[list[float], list[float]]:
    """Places in (0, 1) and weights, which add up to 1, that integrate polynomials of degree 2 steps - 1 exactly."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    return ((places + 1) / 2).tolist(), (weights / 2).tolist()


@method(
    name="integrated_gradients",
    summary="pixels times the mean gradient on the way from a baseline to the image",
    source="Sundararajan et al., ICML 2017, eq. 1",
    architecture="any",
    settings=IntegratedGradientsSettings,
    cost=lambda settings: Cost(settings.steps, settings.steps),
    gradients=True,
    signed=True,
    resolution="input",
)
def build(model: nn.Module, settings: IntegratedGradientsSettings) -> IntegratedGradients:
    return IntegratedGradients(model, settings)
