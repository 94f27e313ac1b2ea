"""LaFAM, Label-free Activation Map (Karjauv and Albayrak 2024, arXiv 2407.06059): where a layer is active, whatever the class.

It knows the network and no class, so it is what a map must beat to show a class: a baseline beside the chance maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from jaxtyping import Float, Int

from ..lazy_torch import torch
from .batch_method import BatchMethod, MethodMaps
from .cams import LAYER_TEXT, last_layer
from .layer_gradients import LayerGradients
from .normalise import spread, upsampled
from .protocol import Cost, method, setting

COST = Cost(forwards=1)


@method(
    name="lafam",
    summary="the mean of a layer's maps, the same for every class: what a map must beat to show a class",
    source="Karjauv and Albayrak 2024, arXiv 2407.06059",
    architecture="cnn",
    cost=lambda settings: COST,
    dense=True,
    classless=True,
)
class LaFAM(BatchMethod):
    """Up(N(mean over channels of A)), N to [0, 1] over the map's own range."""

    reads_logits = True

    layer: str | None = setting(default=None, text=LAYER_TEXT)

    @cached_property
    def layers(self) -> LayerGradients:
        """Reads the layer."""
        return LayerGradients(self.model, None if self.layer is None else [self.layer], last_layer)

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """In [0, 1]; `targets` and `seeds` are not used."""
        size = (images.shape[2], images.shape[3])
        logits, layers = self.layers.values(images)
        return MethodMaps(upsampled(spread(layers[-1].mean(dim=1)), size).float(), COST, logits=logits)
