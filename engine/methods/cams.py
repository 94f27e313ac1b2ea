"""Grad-CAM, Grad-CAM++ and LayerCAM: one layer's maps are summed with weights made of the gradient of the target's logit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float, Int

from ..layers.block_plan import BlockPlan
from ..lazy_torch import torch
from .batch_method import BatchMethod, MethodMaps
from .layer_gradients import LayerGradients, LayerMaps
from .normalise import positive_part
from .protocol import Cost, method, setting

COST = Cost(forwards=1, backwards=1)
LAYER_TEXT = "layer to read; the last block layer of SISE's plan unless named"


@dataclass(frozen=True, eq=False)
class RawMaps:
    """A method's values before they are rectified and put in [0, 1]."""

    maps: Float[torch.Tensor, "batch h w"]
    """At the method's own resolution."""
    logits: Float[torch.Tensor, "batch class *pixels"]
    """Of the images themselves."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Cam(BatchMethod):
    """A class activation map of one layer."""

    reads_logits = True
    pixelwise = False
    """The raw map is coarser than the input."""
    raw_cost = COST

    layer: str | None = setting(default=None, text=LAYER_TEXT)

    @staticmethod
    def weigh(layer: LayerMaps) -> Float[torch.Tensor, "batch h w"]:
        """The CAM of a layer before its last rectifier."""
        raise NotImplementedError

    @cached_property
    def gradients(self) -> LayerGradients:
        """Reads the layer."""
        return LayerGradients(self.model, None if self.layer is None else [self.layer], last_layer)

    def raw(
        self, images: Float[torch.Tensor, "batch channel height width"], targets: Int[torch.Tensor, " batch"]
    ) -> RawMaps:
        """The signed CAM at the layer's resolution, and the logits."""
        logits, [layer] = self.gradients(images, targets, self.objects)
        return RawMaps(self.weigh(layer), logits)

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Positive part, bilinear to the input's size, over its maximum; `seeds` are not used."""
        size, raw = (images.shape[2], images.shape[3]), self.raw(images, targets)
        return MethodMaps(positive_part(raw.maps, size), COST, logits=raw.logits)


def last_layer(plan: BlockPlan) -> BlockPlan:
    """The last block layer alone."""
    return BlockPlan(plan[-1:], plan.how)


@method(
    name="grad_cam",
    summary="one layer's maps, each weighed by its mean gradient",
    source="Selvaraju et al., ICCV 2017, eqs. 1-2",
    architecture="cnn",
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    dense=True,
)
class GradCAM(Cam):
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391)."""

    @staticmethod
    def weigh(layer: LayerMaps) -> Float[torch.Tensor, "batch h w"]:
        """sum_k alpha_k A_k with alpha_k the mean over positions of dy_c / dA_k (eqs. 1 and 2 before the ReLU)."""
        alphas = layer.gradients.mean(dim=(2, 3), keepdim=True)
        return (alphas * layer.maps).sum(dim=1)


@method(
    name="grad_cam_pp",
    summary="one layer's maps, weighed so that several instances of the class count",
    source="Chattopadhay et al., WACV 2018, eqs. 5, 19",
    architecture="cnn",
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    dense=True,
)
class GradCAMPlusPlus(Cam):
    """Grad-CAM++ (Chattopadhay et al., WACV 2018, arXiv 1710.11063)."""

    @staticmethod
    def weigh(layer: LayerMaps) -> Float[torch.Tensor, "batch h w"]:
        """sum_k w_k A_k with w_k = sum_ij alpha_ij relu(g_ij) (eqs. 1, 5), g the gradient of the logit.

        alpha_ij = g_ij^2 / (2 g_ij^2 + sum_ab A_ab g_ij^3) (eq. 19, Y = exp(logit), whose factor exp(logit) is the same everywhere and
        leaves with the map's scale). With g_ij^2 cancelled it is 1 / (2 + g_ij sum_ab A_ab), which needs no constant against
        division by zero where g is small; where g is 0 or negative relu(g) takes the position out.
        """
        gains = layer.gradients.relu()
        below = 2 + gains * layer.maps.sum(dim=(2, 3), keepdim=True)
        alphas = torch.where(below == 0, 0, 1 / below)
        return ((alphas * gains).sum(dim=(2, 3), keepdim=True) * layer.maps).sum(dim=1)


@method(
    name="layer_cam",
    summary="one layer's maps, each cell weighed by its own positive gradient; works for low layers, too",
    source="Jiang et al., IEEE TIP 2021, eqs. 5-7",
    architecture="cnn",
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    dense=True,
)
class LayerCAM(Cam):
    """LayerCAM (Jiang et al., IEEE TIP 2021, doi 10.1109/TIP.2021.3089943)."""

    @staticmethod
    def weigh(layer: LayerMaps) -> Float[torch.Tensor, "batch h w"]:
        """sum_k relu(dy_c / dA_k) A_k, position by position (eqs. 5-7 before the ReLU)."""
        return (layer.gradients.relu() * layer.maps).sum(dim=1)


CAMS: dict[str, type[Cam]] = {"grad_cam": GradCAM, "grad_cam_pp": GradCAMPlusPlus, "layer_cam": LayerCAM}
"""By name, for methods that are made of CAMs."""
