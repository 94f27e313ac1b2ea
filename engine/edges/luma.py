"""Brightness of colour images, which edges are taken of."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601)."""


def luma_of(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
    """The weighted sum of the channels."""
    return (images * torch.tensor(LUMA, device=images.device, dtype=images.dtype)[:, None, None]).sum(1)
