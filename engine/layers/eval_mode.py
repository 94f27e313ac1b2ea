"""Run a model in eval mode, then restore each submodule's own training flag.

Knows nothing of SISE. `model.train(was_training)` would not do: it overwrites the flags of submodules that the user froze.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..lazy_torch import nn

_HELD: dict[int, int] = {}
"""How many contexts hold each model, by its id: only the outermost walks through its modules."""


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put `model` in eval mode; restore every submodule's training flag on the way out, also after an error.

    Contexts of one model may be nested at no cost: a session holds the outermost.

    Yields:
        The same model. Hooks, gradients and parameters are not touched by this context.
    """
    key = id(model)
    flags = [] if key in _HELD else [(module, module.training) for module in model.modules()]
    _HELD[key] = _HELD.get(key, 0) + 1
    try:
        if any(training for _, training in flags):
            model.eval()
        yield model
    finally:
        _HELD[key] -= 1
        if not _HELD[key]:
            del _HELD[key]
        for module, training in flags:
            if module.training != training:
                module.training = training
