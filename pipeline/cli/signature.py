"""Give a command its parameters at run time, for commands whose flags are made from settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def set_signature(command: Callable[..., int], signature: inspect.Signature) -> None:
    """Make cyclopts see `signature` in the place of the function's own parameters."""
    attributes: dict[str, Any] = vars(command)
    attributes["__signature__"] = signature
    command.__annotations__ = {name: item.annotation for name, item in signature.parameters.items()}
