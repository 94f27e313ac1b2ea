"""Score-CAM (Wang et al., CVPR workshops 2020, arXiv 1910.01279), all images sharing mask batches.

In Algorithm 1 a map's weight is the softmax over the layer's maps of what it adds to the output of the class, for which libraries take the
logit: `weights="softmax"`. The fully masked input's output drops out of that softmax, so it is not asked for. The authors' code takes
the class probability as the weight itself: `weights="probability"`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float

from ... import statuses
from ..lazy_torch import torch
from ..scoring.confidence import LOGIT
from ..scoring.precision import gradient_precision
from ..sise.layer_masks import LayerMasks
from ..sise.masks import upsample
from .cams import LAYER_TEXT, last_layer
from .layer_gradients import LayerGradients
from .mask_method import MaskMethod, Masks, NoMasksError
from .protocol import method, require_one_of, setting

if TYPE_CHECKING:
    from ..scoring.masked_scorer import Scorer


@method(
    name="score_cam",
    summary="one layer's maps, each weighed by the score that it leaves as a mask",
    source="Wang et al., CVPR workshops 2020, Algorithm 1",
    architecture="cnn",
    cost=lambda settings: None,
    packed=True,
    dense=True,
)
class ScoreCAM(MaskMethod):
    """A layer's maps as masks."""

    layer: str | None = setting(default=None, text=LAYER_TEXT)
    weights: Literal["softmax", "probability"] = setting(
        default="softmax",
        text="of maps: softmax of their logits, as in the paper's algorithm, or probability, as in the authors' code",
    )

    def check(self) -> None:
        require_one_of("weights", self.weights, ("softmax", "probability"))

    @cached_property
    def gradients(self) -> LayerGradients:
        """Knows the layer."""
        return LayerGradients(self.model, None if self.layer is None else [self.layer], last_layer)

    @property
    def mask_scorer(self) -> Scorer:
        """By the logit, where the weights are a softmax over masks."""
        return self._logit_scorer

    @cached_property
    def _logit_scorer(self) -> Scorer:
        if self.weights != "softmax" or self.confidence.scene is not None:
            return self.scorer
        from ..scoring.masked_scorer import Scorer

        return Scorer(self.model, replace(self, confidence=LOGIT))

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        from ..layers.capture import capture_layers

        with gradient_precision(images.device):
            output, maps = capture_layers(self.model, self.gradients.plan(images), images, gradients=False)
        return output.detach(), tuple(maps)

    def draw(self, image: torch.Tensor, target: int, seed: int, layers: tuple[torch.Tensor, ...]) -> ChannelMasks:
        return ChannelMasks(image, layers[0], target, self.weights)


class ChannelMasks(Masks):
    """A layer's maps, upsampled and min-maxed, as masks; constant ones are left out."""

    def __init__(self, image: torch.Tensor, maps: torch.Tensor, target: int, weights: str):
        self._weights = weights
        self._layer = LayerMasks(image, maps, maps.new_ones(len(maps)), 0.0, target)
        if not self._layer.finite:
            raise NoMasksError(statuses.NON_FINITE, "a map of the layer is not finite")
        if self._layer.job.count == 0:
            raise NoMasksError(statuses.NO_EVIDENCE, "every map of the layer gives the same value to every pixel")
        self.job = self._layer.job

    def total(self) -> Float[torch.Tensor, "height width"]:
        """ReLU(sum_k alpha_k A_k) at the layer's resolution, upsampled; float64."""
        scores = self.job.scores.double()
        alphas = scores.softmax(dim=0) if self._weights == "softmax" else scores
        raw = torch.einsum("k,khw->hw", alphas, self._layer.maps.double()).relu()
        return upsample(raw[None], self._layer.size)[0]
