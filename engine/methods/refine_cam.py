"""RefineCAM (Domeniconi et al., How to Evaluate and Refine your CAM, ICPR 2026, arXiv 2605.14641).

CAMs of several layers, upsampled to the input's size, are multiplied: coarse maps say where, fine ones what exactly. Each is
rectified and min-maxed first, and the product is min-maxed. The paper's text was not at hand; the definition is the one that its first author gave to
pytorch-grad-cam (`RefineCAM`, pull request 595; in the paper's own repository `MultiplierMix`): base Grad-CAM++, one product over all
layers that the user names. Which layers is left to the user there, in the example a ResNet's four stages; here the last four
block layers unless named.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from jaxtyping import Float, Int

from ..layers.block_plan import BlockPlan
from ..lazy_torch import torch
from .batch_method import BatchMethod, MethodMaps
from .cams import CAMS, COST
from .layer_gradients import LayerGradients
from .normalise import spread, upsampled
from .protocol import method, require, require_one_of, setting


@method(
    name="refine_cam",
    summary="several layers' CAMs multiplied: as fine as the low layers, as selective as the last",
    source="Domeniconi et al., ICPR 2026, arXiv 2605.14641, as its author put it into pytorch-grad-cam",
    status="code",
    completed="which layers where the user names none",
    architecture="cnn",
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    dense=True,
)
class RefineCAM(BatchMethod):
    """The product of several layers' CAMs, all of one forward and one backward pass."""

    reads_logits = True

    layers: tuple[str, ...] | None = setting(
        default=None, text="layers to multiply; the last `depth` block layers unless named"
    )
    depth: int = setting(default=4, text="how many of the last block layers, at least 1, where `layers` names none")
    base: Literal["grad_cam", "grad_cam_pp", "layer_cam"] = setting(
        default="grad_cam_pp", text="CAM of each layer: grad_cam, grad_cam_pp or layer_cam"
    )

    def check(self) -> None:
        require(self.depth >= 1, f"depth must be at least 1, got {self.depth}")
        require(self.layers is None or len(self.layers) > 0, "layers must name at least one layer, or be left out")
        require_one_of("base", self.base, tuple(CAMS))

    @cached_property
    def gradients(self) -> LayerGradients:
        """Reads the layers."""
        return LayerGradients(self.model, self.layers, lambda plan: last_layers(plan, self.depth))

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The product in [0, 1]; constant where one layer's CAM is; `seeds` are not used."""
        size = (images.shape[2], images.shape[3])
        product = images.new_ones(len(images), *size).double()
        logits, layers = self.gradients(images, targets, self.objects)
        for layer in layers:
            product = product * spread(upsampled(CAMS[self.base].weigh(layer).relu().double(), size))
        return MethodMaps(spread(product).float(), COST, logits=logits)


def last_layers(plan: BlockPlan, depth: int) -> BlockPlan:
    """The last `depth` block layers."""
    return BlockPlan(plan[-depth:], plan.how)
