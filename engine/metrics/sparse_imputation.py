"""Imputation of one hole by a direct solver: on a CPU three times as fast as conjugate gradients, and exact.

All channels share one factorisation (SuperLU). On an accelerator, which has no such solver, the systems of many images are solved
together by conjugate gradients, see `imputation`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DIRECT, DIAGONAL = 1 / 6, 1 / 12
"""Weights of a pixel's neighbours."""


def fill_hole(
    image: Float[Tensor, "channel height width"],
    hole: Bool[Tensor, "height width"],
    weight: Float[Tensor, "height width"],
    target: Float[Tensor, "channel height width"],
) -> Float[Tensor, "channel height width"]:
    """Solve `weight * x - sum over removed neighbours of x = target` for the removed pixels.

    Args:
        image: float64, on the CPU.
        hole: The removed pixels; not all of them.
        weight: Sum of the weights of every pixel's neighbours inside the image.
        target: Weighted sum of the neighbours that stayed.

    Returns:
        The image with its hole filled.
    """
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    filled = image.clone()
    if not bool(hole.any()):
        return filled
    height, width = hole.shape
    numbers = torch.full((height + 2, width + 2), -1)
    inner = numbers[1:-1, 1:-1]
    inner[hole] = torch.arange(int(hole.sum()))
    own = inner[hole]
    rows, columns, values = [own], [own], [weight[hole]]
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if down or right:
                beside = numbers[1 + down : height + 1 + down, 1 + right : width + 1 + right][hole]
                inside = beside >= 0
                rows.append(own[inside])
                columns.append(beside[inside])
                values.append(weight.new_full((len(rows[-1]),), -DIAGONAL if down and right else -DIRECT))
    matrix = csc_matrix((torch.cat(values).numpy(), (torch.cat(rows).numpy(), torch.cat(columns).numpy())))
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    filled[:, hole] = torch.from_numpy(factors.solve(target[:, hole].T.contiguous().numpy()).T.copy())
    return filled
