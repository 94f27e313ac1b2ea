"""Which axis of a module's output holds the channels, measured: a change in one corner of the image changes a map in that corner.

Shapes alone do not tell: 8 x 8 x 8 may be channels first or last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .survey import is_compiled

FIRST, LAST = 1, 3
CLEAR = 0.02
"""Difference of the two axes' contrast from which it counts; contrast is 1 where a corner's change stays in its corner."""


def measured_axes(model: nn.Module, images: Tensor) -> list[int | None]:
    """The channel axis of every module call's tensor output, in call order; None where it has not four axes or nothing tells.

    Args:
        model: In eval mode.
        images: `(batch, channel, height, width)`; their size and device count.
    """
    if images.is_meta:  # shapes without values: nothing can be measured
        return []
    outputs: list[Tensor | None] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output.detach() if output.ndim == 4 and output.shape[0] == 3 else None)

    modules = [module for path, module in model.named_modules() if path and not is_compiled(module)]
    handles = [module.register_forward_hook(note) for module in modules]
    try:
        with torch.no_grad():
            model(_corners(images))
    except Exception:  # a model for one image at a time: said elsewhere
        return []
    finally:
        for handle in handles:
            handle.remove()
    return [None if output is None else _axis(output.float()) for output in outputs]


def _corners(images: Tensor) -> Tensor:
    """Noise, the same with other noise in its upper left quarter, and in its lower right one."""
    generator = torch.Generator().manual_seed(0)
    noise, other = (torch.rand(images.shape[1:], generator=generator) * 2 - 1 for _ in range(2))
    height, width = (side // 2 for side in images.shape[2:])
    batch = noise.repeat(3, 1, 1, 1)
    batch[1, :, :height, :width] = other[:, :height, :width]
    batch[2, :, height:, width:] = other[:, height:, width:]
    return batch.to(images.device, images.dtype)


def _axis(output: Tensor) -> int | None:
    first, last = _contrast(output), _contrast(output.movedim(LAST, FIRST))
    if first is None or last is None or abs(first - last) < CLEAR:
        return None
    return FIRST if first > last else LAST


def _contrast(output: Tensor) -> float | None:
    """How much of a corner's change lies in that corner and not in the opposite one, with channels on axis 1."""
    upper, lower = (output[1:] - output[0]).abs().sum(dim=1)
    height, width = (side // 2 for side in upper.shape)
    total = float(upper.sum() + lower.sum())
    if not height or not width or not total > 0:
        return None
    own = upper[:height, :width].sum() + lower[-height:, -width:].sum()
    opposite = upper[-height:, -width:].sum() + lower[:height, :width].sum()
    return float(own - opposite) / total
