"""Fusion of the block maps, Fig. 5 of the paper: a cascade of Otsu gates from the lowest block to the highest."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float

from ..lazy_torch import torch

BINS = 256
STEEPNESS = 100
"""Of the soft gate."""
Gate = Literal["otsu", "soft"]


def otsu_thresholds(maps: Float[torch.Tensor, "layer height width"]) -> Float[torch.Tensor, " layer"]:
    """Otsu's threshold of each map over its own range, bit for bit as `skimage.filters.threshold_otsu` on float64.

    NumPy's histogram corrects the bin of a value by comparing it with the bin's edges, and skimage multiplies the class
    weights in float32; both are repeated here because a tie between two bins would otherwise be resolved another way.

    Returns:
        The centre of the best bin, float64. The value itself for a map that is the same everywhere.
    """
    flat = maps.double().flatten(1)
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    counts, edges = histogram(flat, low, high)
    centres = (edges[:, :-1] + edges[:, 1:]) / 2
    below = counts.cumsum(dim=1)
    above = counts.flip(1).cumsum(dim=1).flip(1)
    mass = counts * centres
    mean_below = mass.cumsum(dim=1) / below
    mean_above = mass.flip(1).cumsum(dim=1).flip(1) / above
    weights = (below[:, :-1].float() * above[:, 1:].float()).double()
    variance = weights * (mean_below[:, :-1] - mean_above[:, 1:]) ** 2
    best = centres.gather(1, variance.argmax(dim=1, keepdim=True))
    return torch.where(high > low, best, low).squeeze(1)


def histogram(flat: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts `(layer, bin)` and edges `(layer, bin + 1)` of every row over its own range, as `numpy.histogram` bins."""
    steps = torch.arange(BINS + 1, dtype=flat.dtype, device=flat.device)
    edges = low + steps * ((high - low) / BINS)
    edges[:, -1:] = high
    span = torch.where(high > low, high - low, torch.ones_like(low))
    index = ((flat - low) / span * BINS).long().clamp(0, BINS - 1)
    index -= (flat < edges.gather(1, index)).long()
    index += ((flat >= edges.gather(1, index + 1)) & (index != BINS - 1)).long()
    counts = torch.zeros(flat.shape[0], BINS, dtype=flat.dtype, device=flat.device)
    counts.scatter_add_(1, index, torch.ones_like(flat))
    return counts, edges


def fuse(
    layer_maps: Float[torch.Tensor, "layer height width"], gate: Gate = "otsu"
) -> Float[torch.Tensor, "height width"]:
    """`S = V_1; S = (S + V_l) * 1[V_l > otsu(V_l)]` for l = 2..B, low block to high, nothing re-normalised between.

    Args:
        layer_maps: V_l of every block, each min-maxed to [0, 1].
        gate: `soft` is 1 / (1 + exp(-100 (V_l - otsu(V_l)))) in place of the step.

    Returns:
        S in [0, B].
    """
    thresholds = otsu_thresholds(layer_maps)[:, None, None]
    gates = layer_maps > thresholds if gate == "otsu" else (STEEPNESS * (layer_maps - thresholds)).sigmoid()
    fused = layer_maps[0]
    for layer, opened in zip(layer_maps[1:], gates[1:], strict=True):
        fused = (fused + layer) * opened
    return fused
