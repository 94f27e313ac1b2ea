"""Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from .batch_settings import CamSettings
from .cams import COST, Cam
from .layer_gradients import LayerMaps
from .protocol import method


def weigh(layer: LayerMaps) -> Float[Tensor, "batch h w"]:
    """sum_k alpha_k A_k with alpha_k the mean over positions of dy_c / dA_k (eqs. 1 and 2 before the ReLU)."""
    alphas = layer.gradients.mean(dim=(2, 3), keepdim=True)
    return (alphas * layer.maps).sum(dim=1)


@method(
    name="grad_cam",
    summary="one layer's maps, each weighed by its mean gradient",
    source="Selvaraju et al., ICCV 2017, eqs. 1-2",
    architecture="cnn",
    settings=CamSettings,
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
)
def build(model: nn.Module, settings: CamSettings) -> Cam:
    return Cam(model, settings, weigh)
