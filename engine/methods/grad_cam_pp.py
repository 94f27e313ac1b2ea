"""Grad-CAM++ (Chattopadhay et al., WACV 2018, arXiv 1710.11063)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .batch_settings import CamSettings
from .cams import COST, Cam
from .layer_gradients import LayerMaps
from .protocol import method


def weigh(layer: LayerMaps) -> Float[Tensor, "batch h w"]:
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
    name="grad_cam_pp",
    summary="one layer's maps, weighed so that several instances of the class count",
    source="Chattopadhay et al., WACV 2018, eqs. 5, 19",
    architecture="cnn",
    settings=CamSettings,
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
)
def build(model: nn.Module, settings: CamSettings) -> Cam:
    return Cam(model, settings, weigh)
