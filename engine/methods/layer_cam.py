"""LayerCAM (Jiang et al., IEEE TIP 2021, doi 10.1109/TIP.2021.3089943)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from .batch_settings import CamSettings
from .cams import COST, Cam
from .layer_gradients import LayerMaps
from .protocol import method


def weigh(layer: LayerMaps) -> Float[Tensor, "batch h w"]:
    """sum_k relu(dy_c / dA_k) A_k, position by position (eqs. 5-7 before the ReLU)."""
    return (layer.gradients.relu() * layer.maps).sum(dim=1)


@method(
    name="layer_cam",
    summary="one layer's maps, each cell weighed by its own positive gradient; works for low layers, too",
    source="Jiang et al., IEEE TIP 2021, eqs. 5-7",
    architecture="cnn",
    settings=CamSettings,
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
)
def build(model: nn.Module, settings: CamSettings) -> Cam:
    return Cam(model, settings, weigh)
