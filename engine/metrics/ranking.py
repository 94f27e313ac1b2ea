"""Pixels by relevance. Ties never change how many pixels "the top 15 %" are: they are broken by the fixed row-major order."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def rank_pixels(maps: Float[Tensor, "batch height width"]) -> Int[Tensor, "batch pixel"]:
    """Flat pixel indices, most relevant first; of equal pixels the one nearer to the top left comes first."""
    return maps.flatten(1).argsort(dim=1, descending=True, stable=True)


def top_pixels(
    order: Int[Tensor, "batch pixel"], counts: Int[Tensor, " batch"], size: tuple[int, int]
) -> Bool[Tensor, "batch height width"]:
    """The `counts` most relevant pixels of each map, exactly that many."""
    chosen = torch.arange(order.shape[1], device=order.device) < counts[:, None]
    return torch.zeros_like(chosen).scatter(1, order, chosen).unflatten(1, size)


def top_share(
    order: Int[Tensor, "batch pixel"], share: float, size: tuple[int, int]
) -> Bool[Tensor, "batch height width"]:
    """The most relevant `round(share * height * width)` pixels of each map."""
    counts = torch.full((len(order),), round(share * order.shape[1]), device=order.device)
    return top_pixels(order, counts, size)
