"""SISE whose masks count by what they score beyond masks of the same area; heatlas's own, measured in docs/sise.md.

A large mask scores high because it is large: it leaves more of the image. So within every block the score is fitted by a straight line through the
masks' areas, and a mask's weight in eq. 12 is what it scores above the line, or 0. Selection, masks, forwards, gates and fusion are SISE's. A
block with fewer than three masks, or all of whose masks lie on the line, keeps SISE's weights.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal  # noqa: F401  (SISE's settings are resolved here, too)

from jaxtyping import Float

from ..lazy_torch import torch
from .protocol import method
from .sise import SISE

if TYPE_CHECKING:
    from ..sise.layer_masks import LayerMasks

FEWEST_MASKS = 3
"""Two are always on a line."""
ON_THE_LINE = 1e-5
"""Of the largest score: what is above the line by less is rounding."""


@method(
    name="sise_plus",
    summary="SISE whose masks count by what they score beyond masks of the same area; heatlas's own",
    source="heatlas, on Sattarzadeh et al., AAAI 2021",
    status="ours",
    completed="weights above a line through the masks' areas in the place of eq. 11's scores",
    architecture="cnn",
    cost=lambda settings: None,
    gradients=True,
    packed=True,
    dense=True,
)
class SISEPlus(SISE):
    """SISE with increments over masks of the same area."""

    baseline: bool = field(default=False, init=False)  # the line takes it out

    def block_sum(self, layer: LayerMasks, shown: float | torch.Tensor) -> Float[torch.Tensor, "height width"]:
        return layer.weighted_sum(scores=above_line(layer.areas(), layer.job.scores.double()))


def above_line(
    areas: Float[torch.Tensor, " mask"], scores: Float[torch.Tensor, " mask"]
) -> Float[torch.Tensor, " mask"]:
    """What every score is above the least-squares line through (area, score), at least 0; the scores where nothing is."""
    if len(scores) < FEWEST_MASKS:
        return scores
    away, change = areas - areas.mean(), scores - scores.mean()
    power = away.square().sum()
    slope = torch.where(power > 0, (away * change).sum() / torch.where(power > 0, power, 1), 0)
    above = (change - slope * away).clamp(min=0)
    return torch.where(above.max() > ON_THE_LINE * scores.abs().max(), above, scores)
