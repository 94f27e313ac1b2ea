"""Canny's edges (IEEE TPAMI 1986): thin lines where the luma's gradient is a maximum across them, weak ones where they hang on strong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from .luma import luma_of

SIGMA_PX = 1.0
"""Of the Gaussian before the gradient is taken."""
WEAK, STRONG = 0.1, 0.2
"""Least gradient (Sobel's, unscaled, of a luma in [0, 1]) of an edge that hangs on a strong one, and of a strong one."""


def canny_edges(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
    """1 on an edge, else 0.

    Args:
        images: RGB in [0, 1]; looked at one by one on the CPU.
    """
    lumas = luma_of(images.detach().float()).cpu().double().numpy()
    edges = np.stack([thin_lines(luma) for luma in lumas]).astype(np.float32)
    return torch.from_numpy(edges).to(images.device)


def thin_lines(luma: Float[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Edges of one image; none on its border, where an edge has no other side."""
    smooth = ndimage.gaussian_filter(luma, SIGMA_PX, mode="nearest")
    down, across = (ndimage.sobel(smooth, axis=axis) for axis in (0, 1))
    size = np.hypot(down, across)
    inside = np.zeros(size.shape, dtype=bool)
    inside[1:-1, 1:-1] = True
    thin = inside & (size >= WEAK) & is_ridge(down, across, size)
    labelled: Any = ndimage.label(thin, np.ones((3, 3), dtype=bool))  # SciPy's signature knows no structure
    lines, count = labelled
    strong = np.zeros(count + 1, dtype=bool)
    strong[lines[thin & (size >= STRONG)]] = True
    return strong[lines] & thin


def is_ridge(
    down: Float[np.ndarray, "height width"],
    across: Float[np.ndarray, "height width"],
    size: Float[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Where the gradient's size is no less than on either side along its direction, between the two nearest pixels there."""
    steep = np.maximum(abs(down), abs(across))
    flat = np.minimum(abs(down), abs(across))
    share = np.divide(flat, steep, out=np.zeros_like(flat), where=steep > 0)
    padded = np.pad(size, 1)
    rows, columns = np.indices(size.shape)
    step_down, step_across = np.where(down >= 0, 1, -1), np.where(across >= 0, 1, -1)
    vertical = abs(down) >= abs(across)
    result = np.ones(size.shape, dtype=bool)
    for sign in (1, -1):
        straight = padded[
            rows + 1 + sign * np.where(vertical, step_down, 0), columns + 1 + sign * np.where(vertical, 0, step_across)
        ]
        diagonal = padded[rows + 1 + sign * step_down, columns + 1 + sign * step_across]
        result &= size >= share * diagonal + (1 - share) * straight
    return result
