"""heatlas: explains whole image datasets with SISE; maps and metrics as Parquet, on Ray.

The public names load on first use, so that `heatlas --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.blocks import BlockLayer, BlockPlan, block_layers
    from .engine.errors import HeatlasError
    from .engine.methods.bound import bind_method as method
    from .engine.sise import SISE, SISEResult
    from .pipeline.atlas import Atlas
    from .pipeline.atlas import open_atlas as open
    from .pipeline.bank import make_bank
    from .pipeline.evaluate import evaluate_store
    from .pipeline.explain import explain_dataset

__version__ = "0.1.0"
__all__ = [
    "SISE",
    "Atlas",
    "BlockLayer",
    "BlockPlan",
    "HeatlasError",
    "SISEResult",
    "block_layers",
    "evaluate_store",
    "explain_dataset",
    "make_bank",
    "method",
    "open",
]

_HOMES = {
    "SISE": ("engine.sise", "SISE"),
    "SISEResult": ("engine.sise", "SISEResult"),
    "BlockLayer": ("engine.blocks", "BlockLayer"),
    "BlockPlan": ("engine.blocks", "BlockPlan"),
    "block_layers": ("engine.blocks", "block_layers"),
    "HeatlasError": ("engine.errors", "HeatlasError"),
    "Atlas": ("pipeline.atlas", "Atlas"),
    "method": ("engine.methods.bound", "bind_method"),
    "open": ("pipeline.atlas", "open_atlas"),
    "evaluate_store": ("pipeline.evaluate", "evaluate_store"),
    "make_bank": ("pipeline.bank", "make_bank"),
    "explain_dataset": ("pipeline.explain", "explain_dataset"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'heatlas' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
