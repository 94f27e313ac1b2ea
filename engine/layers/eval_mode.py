"""A model in eval mode for a while, then exactly as it came: each submodule's own training flag is put back.

Knows nothing of SISE. `model.train(was_training)` would not do: it overwrites the flags of submodules that the user froze.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..lazy_torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """Put `model` in eval mode; restore every submodule's training flag on the way out, also after an error.

    Yields:
        The same model. Hooks, gradients and parameters are not touched by this context.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield model
    finally:
        for module, training in flags:
            module.training = training
