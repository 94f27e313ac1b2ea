"""Score-CAM (Wang et al., CVPR workshops 2020, arXiv 1910.01279), all images sharing mask batches.

In Algorithm 1 a map's weight is the softmax over the layer's maps of what it adds to the output of the class, for which libraries take the
logit: `weights="softmax"`. The fully masked input's output drops out of that softmax, so it is not asked for. The authors' code takes
the class probability as the weight itself: `weights="probability"`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import statuses
from ..layers.capture import capture_layers
from ..scoring.confidence import LOGIT
from ..scoring.scoring_options import Scoring
from ..sise.layer_masks import LayerMasks
from ..sise.masks import upsample
from .cams import last_layer
from .layer_gradients import LayerGradients
from .one_by_one import packed_method
from .packed_settings import ScoreCamSettings
from .sampled import Masks, NoMasksError, Sampled, Seen


class ChannelMasks(Masks):
    """A layer's maps, upsampled and min-maxed, as masks; constant ones are left out."""

    def __init__(self, seen: Seen, weights: str):
        maps = seen.layers[0]
        self._weights = weights
        self._layer = LayerMasks(seen.image, maps, maps.new_ones(len(maps)), 0.0, seen.target)
        if not self._layer.finite:
            raise NoMasksError(statuses.NON_FINITE, "a map of the layer is not finite")
        if self._layer.job.count == 0:
            raise NoMasksError(statuses.NO_EVIDENCE, "every map of the layer gives the same value to every pixel")
        self.job = self._layer.job

    def total(self) -> Float[Tensor, "height width"]:
        """ReLU(sum_k alpha_k A_k) at the layer's resolution, upsampled; float64."""
        scores = self.job.scores.double()
        alphas = scores.softmax(dim=0) if self._weights == "softmax" else scores
        raw = torch.einsum("k,khw->hw", alphas, self._layer.maps.double()).relu()
        return upsample(raw[None], self._layer.size)[0]


@dataclass(frozen=True)
class LayerSeen:
    """The unmasked forward pass with the layer's maps."""

    layer: LayerGradients

    def __call__(self, model: nn.Module, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        logits, maps = capture_layers(model, self.layer.plan(images), images)
        return logits.detach(), tuple(maps)


@packed_method(
    name="score_cam",
    summary="one layer's maps, each weighed by the score that it leaves as a mask",
    source="Wang et al., CVPR workshops 2020, Algorithm 1",
    architecture="cnn",
    settings=ScoreCamSettings,
    cost=lambda settings: None,
)
def pack(model: nn.Module, settings: ScoreCamSettings, scoring: Scoring) -> Sampled:
    layer = LayerGradients(model, None if settings.layer is None else [settings.layer], last_layer)
    return Sampled(
        model, scoring, lambda seen: ChannelMasks(seen, settings.weights), budget_of="score_cam", ask=LayerSeen(layer),
        score=LOGIT if settings.weights == "softmax" and scoring.score.scene is None else None,
    )  # fmt: skip
