"""Counts the operations that make the host wait for a device, and all that are launched."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero")
"""Reads of single numbers, and selections whose size is known only afterwards."""


class Operations(TorchDispatchMode):
    """Counts operations, and those among them that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.launched = 0
        self.waits = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.launched += 1
        self.waits[name] += name in WAITS
        if name in ("index", "index_put_"):
            self.waits["by mask"] += any(place is not None and place.dtype == torch.bool for place in args[1])
        return func(*args, **(kwargs or {}))
