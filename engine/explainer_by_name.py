"""`heatlas.explainer("rise", model, masks=1000)`: a method by name, its class known to type checkers."""

from __future__ import annotations

from typing import Any, Literal, overload

from torch import nn

from .explainer import Explainer
from .methods.agf import AGF
from .methods.bee import BEE
from .methods.bee_select import BEESelect
from .methods.cams import GradCAM, GradCAMPlusPlus, LayerCAM
from .methods.consensus import Consensus
from .methods.daam import DAAM
from .methods.expected_gradients import ExpectedGradients
from .methods.explainer_network import ExplainerNetwork
from .methods.feature_cam import FeatureCAM
from .methods.fovex import FovEx
from .methods.integrated_gradients import IntegratedGradients
from .methods.lafam import LaFAM
from .methods.lima import LiMA
from .methods.occlusion import Occlusion
from .methods.ptame import PTAME
from .methods.refine_cam import RefineCAM
from .methods.registry import bind_method
from .methods.rise import RISE
from .methods.score_cam import ScoreCAM
from .methods.sise import SISE, AdaSISE
from .methods.sise_plus import SISEPlus
from .methods.ttame import TTAME
from .methods.ucag import UCAG
from .methods.winsor_cam import WinsorCAM


@overload
def explainer(name: Literal["sise"], model: nn.Module, **options: Any) -> SISE: ...
@overload
def explainer(name: Literal["ada_sise"], model: nn.Module, **options: Any) -> AdaSISE: ...
@overload
def explainer(name: Literal["rise"], model: nn.Module, **options: Any) -> RISE: ...
@overload
def explainer(name: Literal["score_cam"], model: nn.Module, **options: Any) -> ScoreCAM: ...
@overload
def explainer(name: Literal["grad_cam"], model: nn.Module, **options: Any) -> GradCAM: ...
@overload
def explainer(name: Literal["grad_cam_pp"], model: nn.Module, **options: Any) -> GradCAMPlusPlus: ...
@overload
def explainer(name: Literal["layer_cam"], model: nn.Module, **options: Any) -> LayerCAM: ...
@overload
def explainer(name: Literal["integrated_gradients"], model: nn.Module, **options: Any) -> IntegratedGradients: ...
@overload
def explainer(name: Literal["occlusion"], model: nn.Module, **options: Any) -> Occlusion: ...
@overload
def explainer(name: Literal["refine_cam"], model: nn.Module, **options: Any) -> RefineCAM: ...
@overload
def explainer(name: Literal["daam"], model: nn.Module, **options: Any) -> DAAM: ...
@overload
def explainer(name: Literal["ucag"], model: nn.Module, **options: Any) -> UCAG: ...
@overload
def explainer(name: Literal["fovex"], model: nn.Module, **options: Any) -> FovEx: ...
@overload
def explainer(name: Literal["consensus"], model: nn.Module, **options: Any) -> Consensus: ...
@overload
def explainer(name: Literal["agf"], model: nn.Module, **options: Any) -> AGF: ...
@overload
def explainer(name: Literal["lafam"], model: nn.Module, **options: Any) -> LaFAM: ...
@overload
def explainer(name: Literal["bee"], model: nn.Module, **options: Any) -> BEE: ...
@overload
def explainer(name: Literal["bee_select"], model: nn.Module, **options: Any) -> BEESelect: ...
@overload
def explainer(name: Literal["feature_cam"], model: nn.Module, **options: Any) -> FeatureCAM: ...
@overload
def explainer(name: Literal["expected_gradients"], model: nn.Module, **options: Any) -> ExpectedGradients: ...
@overload
def explainer(name: Literal["winsor_cam"], model: nn.Module, **options: Any) -> WinsorCAM: ...
@overload
def explainer(name: Literal["lima"], model: nn.Module, **options: Any) -> LiMA: ...
@overload
def explainer(name: Literal["sise_plus"], model: nn.Module, **options: Any) -> SISEPlus: ...
@overload
def explainer(name: Literal["ptame"], model: nn.Module, **options: Any) -> PTAME: ...
@overload
def explainer(name: Literal["explainer_network"], model: nn.Module, **options: Any) -> ExplainerNetwork: ...
@overload
def explainer(name: Literal["ttame"], model: nn.Module, **options: Any) -> TTAME: ...
@overload
def explainer(name: str, model: nn.Module, **options: Any) -> Explainer: ...
def explainer(name: str, model: nn.Module, **options: Any) -> Explainer:
    """A method over a model, by name.

    Args:
        name: One of `heatlas methods`.
        model: A classifier; it is left as it came.
        **options: Settings of the method (`heatlas methods NAME`), and how its passes run (`batch_size`, `precision`, `budget`, ...).

    Raises:
        SettingsError: When there is no such method or setting, or a value is out of its range.
        ModelError: When the method cannot explain the model.
    """
    return bind_method(name, model, **options)
