"""Pixels by relevance. Ties never change how many pixels "the top 15 %" are: they are broken by the fixed row-major order."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int

from ..lazy_torch import torch


def rank_pixels(maps: Float[torch.Tensor, "batch height width"]) -> Int[torch.Tensor, "batch pixel"]:
    """Flat pixel indices, most relevant first; of equal pixels the one nearer to the top left comes first."""
    return maps.flatten(1).argsort(dim=1, descending=True, stable=True)


def top_pixels(
    order: Int[torch.Tensor, "batch pixel"], counts: Int[torch.Tensor, " batch"], size: tuple[int, int]
) -> Bool[torch.Tensor, "batch height width"]:
    """The `counts` most relevant pixels of each map, exactly that many."""
    chosen = torch.arange(order.shape[1], device=order.device) < counts[:, None]
    return torch.zeros_like(chosen).scatter(1, order, chosen).unflatten(1, size)


def top_share(
    order: Int[torch.Tensor, "batch pixel"], share: float, size: tuple[int, int]
) -> Bool[torch.Tensor, "batch height width"]:
    """The most relevant `round(share * height * width)` pixels of each map."""
    counts = torch.full((len(order),), round(share * order.shape[1]), device=order.device)
    return top_pixels(order, counts, size)


def average_ranks(flat: Float[torch.Tensor, "row pixel"]) -> Float[torch.Tensor, "row pixel"]:
    """Ranks from 1 in every row, equal values sharing the mean of their places; float64, as `scipy.stats.rankdata`."""
    ordered = flat.sort(dim=1).values
    first = torch.searchsorted(ordered, flat.contiguous(), right=False)
    last = torch.searchsorted(ordered, flat.contiguous(), right=True)
    return (first + last + 1).double() / 2


def correlation(
    first: Float[torch.Tensor, "row pixel"], second: Float[torch.Tensor, "row pixel"]
) -> Float[torch.Tensor, " row"]:
    """Pearson's correlation of each pair of rows, in [-1, 1], float64; NaN where a row is constant or not finite."""
    centred, other = (flat.double() - flat.double().mean(dim=1, keepdim=True) for flat in (first, second))
    spread = centred.norm(dim=1) * other.norm(dim=1)
    whole = (first.amax(dim=1) > first.amin(dim=1)) & (second.amax(dim=1) > second.amin(dim=1))
    value = ((centred * other).sum(dim=1) / spread).clamp(-1, 1)
    return torch.where(whole & value.isfinite(), value, torch.nan)


def spearman(
    first: Float[torch.Tensor, "row pixel"], second: Float[torch.Tensor, "row pixel"]
) -> Float[torch.Tensor, " row"]:
    """Spearman's rank correlation of each pair of rows, in [-1, 1], float64; NaN where a row is constant or not finite."""
    finite = first.isfinite().all(dim=1) & second.isfinite().all(dim=1)
    return torch.where(finite, correlation(average_ranks(first), average_ranks(second)), torch.nan)
