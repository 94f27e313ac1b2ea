"""What the CAMs share: one layer's maps are summed with weights made of the gradient of the target's logit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..layers.block_plan import BlockPlan
from .batch_settings import CamSettings
from .layer_gradients import LayerGradients, LayerMaps
from .normalise import positive_part
from .protocol import Cost, MethodMaps

Weigh = Callable[[LayerMaps], Float[Tensor, "batch h w"]]
"""The CAM of a layer before its last rectifier."""
COST = Cost(forwards=1, backwards=1)


@dataclass(frozen=True, eq=False)
class RawMaps:
    """A method's values before they are rectified and put in [0, 1]."""

    maps: Float[Tensor, "batch h w"]
    """At the method's own resolution."""
    logits: Float[Tensor, "batch class"]
    """Of the images themselves."""


class Cam:
    """A class activation map of one layer.

    Args:
        model: A CNN classifier.
        settings: Which layer.
        weigh: The method's formula.
    """

    pixelwise = False
    """The raw map is coarser than the input."""

    def __init__(self, model: nn.Module, settings: CamSettings, weigh: Weigh):
        self._gradients = LayerGradients(model, None if settings.layer is None else [settings.layer], last_layer)
        self._weigh = weigh
        self.raw_cost = COST

    def raw(self, images: Float[Tensor, "batch channel height width"], targets: Int[Tensor, " batch"]) -> RawMaps:
        """The signed CAM at the layer's resolution, and the logits."""
        logits, [layer] = self._gradients(images, targets)
        return RawMaps(self._weigh(layer), logits)

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Positive part, bilinear to the input's size, over its maximum; `seeds` are not used."""
        size = (images.shape[2], images.shape[3])
        return MethodMaps(positive_part(self.raw(images, targets).maps, size), COST)


def last_layer(plan: BlockPlan) -> BlockPlan:
    """The last block layer alone."""
    return BlockPlan(plan[-1:], plan.how)
