"""RefineCAM (Domeniconi et al., How to Evaluate and Refine your CAM, ICPR 2026, arXiv 2605.14641).

CAMs of several layers, upsampled to the input's size, are multiplied: coarse maps say where, fine ones what exactly. Each is
rectified and min-maxed first, and the product is min-maxed. The paper's text was not at hand; the definition is the one that its first author gave to
pytorch-grad-cam (`RefineCAM`, pull request 595; in the paper's own repository `MultiplierMix`): base Grad-CAM++, one product over all
layers that the user names. Which layers is left to the user there, in the example a ResNet's four stages; here the last four
block layers unless named.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..layers.block_plan import BlockPlan
from . import grad_cam, grad_cam_pp, layer_cam
from .batch_settings import RefineCamSettings
from .cams import COST
from .layer_gradients import LayerGradients
from .normalise import spread, upsampled
from .protocol import MethodMaps, method

BASES = {"grad_cam": grad_cam.weigh, "grad_cam_pp": grad_cam_pp.weigh, "layer_cam": layer_cam.weigh}


class RefineCam:
    """The product of several layers' CAMs, all of one forward and one backward pass."""

    def __init__(self, model: nn.Module, settings: RefineCamSettings):
        self._gradients = LayerGradients(model, settings.layers, lambda plan: last_layers(plan, settings.depth))
        self._weigh = BASES[settings.base]

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The product in [0, 1]; constant where one layer's CAM is; `seeds` are not used."""
        size = (images.shape[2], images.shape[3])
        product = images.new_ones(len(images), *size).double()
        for layer in self._gradients(images, targets)[1]:
            product = product * spread(upsampled(self._weigh(layer).relu().double(), size))
        return MethodMaps(spread(product).float(), COST)


def last_layers(plan: BlockPlan, depth: int) -> BlockPlan:
    """The last `depth` block layers."""
    return BlockPlan(plan[-depth:], plan.how)


@method(
    name="refine_cam",
    summary="several layers' CAMs multiplied: as fine as the low layers, as selective as the last",
    source="Domeniconi et al., ICPR 2026, arXiv 2605.14641, as its author put it into pytorch-grad-cam",
    architecture="cnn",
    settings=RefineCamSettings,
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
)
def build(model: nn.Module, settings: RefineCamSettings) -> RefineCam:
    return RefineCam(model, settings)
