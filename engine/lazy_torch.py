"""torch, imported at its first use.

A command line reads the settings of every method (`heatlas explain --help`) and must not wait seconds for torch. A method is one file,
settings and algorithm together, so method files, and the modules that they import at their top, take `torch`, `nn` and `F` from here.
Annotations stay strings, so they import nothing either. Modules that subclass `nn.Module` are imported inside functions.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import nn
else:

    class LazyModule(ModuleType):
        """Stands for a module until something is read from it."""

        def __getattr__(self, name: str) -> Any:
            module = import_module(self.__name__)
            value = getattr(module, name)
            if not name.startswith("__"):
                self.__dict__[name] = value  # the next time it is found at once
            return value

    torch, nn, F = LazyModule("torch"), LazyModule("torch.nn"), LazyModule("torch.nn.functional")

__all__ = ["F", "nn", "torch"]
