"""heatlas: explains image classifiers, one batch or a whole data set; maps and metrics as Parquet, on Ray.

The public names load on first use, so that `heatlas --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .engine.explainer import Explainer
    from .engine.explainer_by_name import explainer
    from .engine.explanation import Explanations
    from .engine.given_maps import MapMetrics
    from .engine.given_maps import evaluate_maps as evaluate
    from .engine.layers.block_plan import BlockLayer, BlockPlan
    from .engine.layers.blocks import block_layers
    from .engine.methods.agf import AGF
    from .engine.methods.bee import BEE
    from .engine.methods.bee_select import BEESelect
    from .engine.methods.cams import GradCAM, GradCAMPlusPlus, LayerCAM
    from .engine.methods.consensus import Consensus
    from .engine.methods.daam import DAAM
    from .engine.methods.expected_gradients import ExpectedGradients
    from .engine.methods.explainer_network import ExplainerNetwork
    from .engine.methods.feature_cam import FeatureCAM
    from .engine.methods.fovex import FovEx
    from .engine.methods.integrated_gradients import IntegratedGradients
    from .engine.methods.lafam import LaFAM
    from .engine.methods.lima import LiMA
    from .engine.methods.occlusion import Occlusion
    from .engine.methods.ptame import PTAME
    from .engine.methods.refine_cam import RefineCAM
    from .engine.methods.rise import RISE
    from .engine.methods.score_cam import ScoreCAM
    from .engine.methods.sise import SISE, AdaSISE
    from .engine.methods.sise_plus import SISEPlus
    from .engine.methods.ttame import TTAME
    from .engine.methods.ucag import UCAG
    from .engine.methods.winsor_cam import WinsorCAM
    from .errors import HeatlasError
    from .pipeline.atlas import Atlas
    from .pipeline.atlas import open_atlas as open
    from .pipeline.evaluate.evaluate import evaluate_store
    from .pipeline.explain.explain import explain_dataset
    from .pipeline.explain.feature_bank import make_bank
    from .pipeline.foreign_maps.import_run import import_maps
    from .pipeline.plan.forecast import plan_dataset as plan
    from .pipeline.spread.masked_dataset import MaskedDataset

__all__ = [
    "AGF",
    "BEE",
    "DAAM",
    "PTAME",
    "RISE",
    "SISE",
    "TTAME",
    "UCAG",
    "AdaSISE",
    "Atlas",
    "BEESelect",
    "BlockLayer",
    "BlockPlan",
    "Consensus",
    "ExpectedGradients",
    "Explainer",
    "ExplainerNetwork",
    "Explanations",
    "FeatureCAM",
    "FovEx",
    "GradCAM",
    "GradCAMPlusPlus",
    "HeatlasError",
    "IntegratedGradients",
    "LaFAM",
    "LayerCAM",
    "LiMA",
    "MapMetrics",
    "MaskedDataset",
    "Occlusion",
    "RefineCAM",
    "SISEPlus",
    "ScoreCAM",
    "WinsorCAM",
    "__version__",
    "block_layers",
    "evaluate",
    "evaluate_store",
    "explain_dataset",
    "explainer",
    "import_maps",
    "make_bank",
    "open",
    "plan",
]

_HOMES = {
    "SISEPlus": ("engine.methods.sise_plus", "SISEPlus"),
    "LiMA": ("engine.methods.lima", "LiMA"),
    "WinsorCAM": ("engine.methods.winsor_cam", "WinsorCAM"),
    "ExpectedGradients": ("engine.methods.expected_gradients", "ExpectedGradients"),
    "FeatureCAM": ("engine.methods.feature_cam", "FeatureCAM"),
    "BEESelect": ("engine.methods.bee_select", "BEESelect"),
    "BEE": ("engine.methods.bee", "BEE"),
    "TTAME": ("engine.methods.ttame", "TTAME"),
    "PTAME": ("engine.methods.ptame", "PTAME"),
    "ExplainerNetwork": ("engine.methods.explainer_network", "ExplainerNetwork"),
    "LaFAM": ("engine.methods.lafam", "LaFAM"),
    "AGF": ("engine.methods.agf", "AGF"),
    "AdaSISE": ("engine.methods.sise", "AdaSISE"),
    "Atlas": ("pipeline.atlas", "Atlas"),
    "BlockLayer": ("engine.layers.block_plan", "BlockLayer"),
    "BlockPlan": ("engine.layers.block_plan", "BlockPlan"),
    "Consensus": ("engine.methods.consensus", "Consensus"),
    "DAAM": ("engine.methods.daam", "DAAM"),
    "Explainer": ("engine.explainer", "Explainer"),
    "Explanations": ("engine.explanation", "Explanations"),
    "FovEx": ("engine.methods.fovex", "FovEx"),
    "GradCAM": ("engine.methods.cams", "GradCAM"),
    "GradCAMPlusPlus": ("engine.methods.cams", "GradCAMPlusPlus"),
    "HeatlasError": ("errors", "HeatlasError"),
    "IntegratedGradients": ("engine.methods.integrated_gradients", "IntegratedGradients"),
    "LayerCAM": ("engine.methods.cams", "LayerCAM"),
    "MapMetrics": ("engine.given_maps", "MapMetrics"),
    "MaskedDataset": ("pipeline.spread.masked_dataset", "MaskedDataset"),
    "Occlusion": ("engine.methods.occlusion", "Occlusion"),
    "RISE": ("engine.methods.rise", "RISE"),
    "RefineCAM": ("engine.methods.refine_cam", "RefineCAM"),
    "SISE": ("engine.methods.sise", "SISE"),
    "ScoreCAM": ("engine.methods.score_cam", "ScoreCAM"),
    "UCAG": ("engine.methods.ucag", "UCAG"),
    "block_layers": ("engine.layers.blocks", "block_layers"),
    "evaluate": ("engine.given_maps", "evaluate_maps"),
    "evaluate_store": ("pipeline.evaluate.evaluate", "evaluate_store"),
    "explain_dataset": ("pipeline.explain.explain", "explain_dataset"),
    "explainer": ("engine.explainer_by_name", "explainer"),
    "import_maps": ("pipeline.foreign_maps.import_run", "import_maps"),
    "make_bank": ("pipeline.explain.feature_bank", "make_bank"),
    "open": ("pipeline.atlas", "open_atlas"),
    "plan": ("pipeline.plan.forecast", "plan_dataset"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'heatlas' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return list(__all__)
