"""How SISE comes to one map: every block's map, and the masks that counted most in it. For looking at single images."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float

from .explanation import Explanation
from .lazy_torch import torch
from .map_shift import moved_back
from .methods.sise import SISE
from .scheduler import run
from .sise.masks import extremes, min_max, upsample


@dataclass(frozen=True, eq=False)
class BlockView:
    """One block's part in an explanation."""

    layer: str
    channels: int
    """Feature maps of the layer."""
    kept: int
    """Of these, the ones that became masks (eqs. 7, 8)."""
    map: Float[torch.Tensor, "height width"]
    """V_l, min-maxed to [0, 1] (eq. 12)."""
    masks: Float[torch.Tensor, "mask height width"]
    """The masks with the highest scores, highest first, in [0, 1]."""
    scores: Float[torch.Tensor, " mask"]
    """Confidence in the target with only that mask visible."""


def compute_block_views(
    sise: SISE, image: Float[torch.Tensor, "channel height width"], target: int | None, masks: int = 4
) -> tuple[Explanation, list[BlockView]]:
    """Explain one image and keep what led to its map.

    Args:
        sise: The method over a model.
        image: In network-input space, on the model's device.
        target: Class to explain; None for the predicted one.
        masks: Of each block, at most.

    Returns:
        The explanation, and a view per block layer, low to high; no views unless its status is `ok`.

    Raises:
        TargetError: When `target` is no class of the model.
    """
    sise.start(image, target, 0).close()  # refuses a class that there is not
    blocks = run(sise.score_blocks(image, target))
    with torch.no_grad():
        explanation = moved_back(sise.keeping(True).explanation_of(blocks), *sise.correct_shift)
        if explanation.layer_maps is None:
            return explanation, []
        views = []
        for layer, masked, block_map in zip(sise.plan(image), blocks.layers, explanation.layer_maps, strict=True):
            best = masked.job.scores.argsort(descending=True, stable=True)[:masks]
            full = upsample(masked.maps[best], masked.size)
            shown = min_max(full, *extremes(full)).float()
            scores = masked.job.scores[best].float()
            views.append(BlockView(layer.name, layer.channels, masked.job.count, block_map, shown, scores))
    return explanation, views
