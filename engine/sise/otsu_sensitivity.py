"""How much an error in a block's map matters in the fused map, where the Otsu gates make small errors large.

Works on coarse maps of what the blocks' maps are thought to be, each with the standard deviation of that thought.
"""

from __future__ import annotations

import math

from jaxtyping import Float

from ..lazy_torch import torch
from .fusion import otsu_thresholds

WIDTH = 0.05
"""Distance from the threshold, in the block map's range, at which a pixel's side of it is in doubt."""
GATE_WEIGHT = 0.3
"""How much a pixel won or lost counts beside a pixel's value changed."""
EVERYWHERE = 0.03
"""Share of the importance that all pixels have alike, since the thought may be wrong."""


def importance(layer_maps: Float[torch.Tensor, "layer pixel"]) -> Float[torch.Tensor, "layer pixel"]:
    """Squared change of the fused map per squared change of each block map's pixel, with a share that is the same everywhere.

    A pixel's value counts as far as the gates from its own block on are open; near its own threshold also what lies below counts,
    which the gate would let through or remove.

    Args:
        layer_maps: V_l of every block, each min-maxed to [0, 1].
    """
    thresholds = otsu_thresholds(layer_maps[:, None])
    fused = layer_maps[0]
    below = [torch.zeros_like(fused)]
    for layer, threshold in zip(layer_maps[1:], thresholds[1:], strict=True):
        below.append(fused)
        fused = (fused + layer) * (layer > threshold)
    passing = torch.ones_like(fused)
    sensitivities = torch.empty_like(layer_maps)
    for place in range(len(layer_maps) - 1, 0, -1):
        steps = (layer_maps[place] - thresholds[place]) / WIDTH
        opened = torch.sigmoid(1.7 * steps)
        density = torch.exp(-0.5 * steps.square()) / (WIDTH * math.sqrt(2 * math.pi))
        sensitivities[place] = passing * (opened + GATE_WEIGHT * density * (below[place] + layer_maps[place]).square())
        passing = passing * opened
    sensitivities[0] = passing
    return EVERYWHERE + (1 - EVERYWHERE) * sensitivities
