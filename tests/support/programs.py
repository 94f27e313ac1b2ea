"""TorchScript programs of modules, also in a process in which PyTorch has forgotten to forget an operator."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.jit import _builtins


def scripted_program(module: nn.Module, example: torch.Tensor | None = None) -> Any:
    """The module scripted, or traced with an example.

    TorchScript knows operators by the `id` of their Python objects and keeps the ids of those that are freed when an operator gets
    another overload. Where a list or tuple of a module lies at such an id, scripting fails with "builtin cannot be used as a value";
    so these ids are dropped first.
    """
    known = _builtins._get_builtin_table()
    for part in module.modules():
        for value in vars(part).values():
            if not callable(value):
                known.pop(id(value), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and models of its kind are about
        return torch.jit.script(module) if example is None else torch.jit.trace(module, example)
