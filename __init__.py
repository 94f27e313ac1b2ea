"""heatlas: explains whole image datasets with SISE; maps and metrics as Parquet, on Ray.

The public names load on first use, so that `heatlas --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .engine.explanation import Explanations
    from .engine.layers.block_plan import BlockLayer, BlockPlan
    from .engine.layers.blocks import block_layers
    from .engine.methods.registry import bind_method as method
    from .engine.methods.sise import SISE
    from .errors import HeatlasError
    from .pipeline.atlas import Atlas
    from .pipeline.atlas import open_atlas as open
    from .pipeline.evaluate.evaluate import evaluate_store
    from .pipeline.explain.explain import explain_dataset
    from .pipeline.explain.feature_bank import make_bank

__all__ = [
    "SISE",
    "Atlas",
    "BlockLayer",
    "BlockPlan",
    "Explanations",
    "HeatlasError",
    "__version__",
    "block_layers",
    "evaluate_store",
    "explain_dataset",
    "make_bank",
    "method",
    "open",
]

_HOMES = {
    "SISE": ("engine.methods.sise", "SISE"),
    "Explanations": ("engine.explanation", "Explanations"),
    "BlockLayer": ("engine.layers.block_plan", "BlockLayer"),
    "BlockPlan": ("engine.layers.block_plan", "BlockPlan"),
    "block_layers": ("engine.layers.blocks", "block_layers"),
    "HeatlasError": ("errors", "HeatlasError"),
    "Atlas": ("pipeline.atlas", "Atlas"),
    "method": ("engine.methods.registry", "bind_method"),
    "open": ("pipeline.atlas", "open_atlas"),
    "evaluate_store": ("pipeline.evaluate.evaluate", "evaluate_store"),
    "make_bank": ("pipeline.explain.feature_bank", "make_bank"),
    "explain_dataset": ("pipeline.explain.explain", "explain_dataset"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'heatlas' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return list(__all__)
