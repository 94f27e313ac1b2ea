"""What a model computes for two fixed images: tells a changed program with the same weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...engine.layers.outputs import logits_of
from ...errors import ModelError
from ..images.preprocess import Preprocess

KEPT = 64
"""Numbers kept of the logits of one image; more logits are added up in so many groups with fixed random signs."""
_DIGITS = 6


def probe_logits(module: nn.Module, preprocess: Preprocess, spec: str) -> tuple[float | None, ...]:
    """What a model makes of two fixed images, noise and a smooth pattern, on the CPU in fp32.

    Args:
        module: In eval mode, on the CPU.
        preprocess: Says the size of its input.
        spec: What the user calls it.

    Returns:
        At most `KEPT` numbers an image, 6 digits each; None for what is not finite.

    Raises:
        ModelError: If the model fails on them.
    """
    try:
        with torch.no_grad():
            logits = logits_of(module(_probe_images(preprocess)))
    except Exception as error:
        raise ModelError(f"{spec} fails on an image of noise: {' '.join(str(error).split())}") from error
    numbers = [value for row in logits.detach().float().flatten(1) for value in _grouped(row).tolist()]
    return tuple(float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in numbers)


def _probe_images(preprocess: Preprocess) -> Tensor:
    generator = torch.Generator().manual_seed(15)
    noise = torch.rand(1, preprocess.channels, *preprocess.size, generator=generator) * 2 - 1
    coarse = torch.rand(1, preprocess.channels, 4, 4, generator=generator) * 4 - 2
    smooth = interpolate(coarse, size=tuple(preprocess.size), mode="bilinear", align_corners=False)
    return torch.cat([noise, smooth])


def _grouped(values: Tensor) -> Tensor:
    """`(number,)` to at most `KEPT` numbers; every value goes into one of them, so a change of any is seen."""
    if len(values) <= KEPT:
        return values
    signs = torch.randint(0, 2, values.shape, generator=torch.Generator().manual_seed(15)) * 2 - 1
    groups = torch.zeros(KEPT, dtype=torch.float64)
    return groups.index_add_(0, torch.arange(len(values)) % KEPT, (values * signs).double())
