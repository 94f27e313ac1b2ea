"""Occlusion (Zeiler and Fergus, ECCV 2014, section 4.2, arXiv 1311.2901)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..fill import baseline_of
from ..scoring.confidence import softmax_probability
from .batch_settings import OcclusionSettings
from .cams import RawMaps
from .layer_gradients import target_logits
from .normalise import over_max
from .passes import logits_without_graph
from .protocol import Cost, MethodMaps, method


class Occlusion:
    """How much the target's probability falls when a square hides part of the image; a pixel has the mean over squares that hide it.

    Every pass holds as many rows as there are images.
    """

    pixelwise = True
    """The raw map is at the input's resolution."""

    def __init__(self, model: nn.Module, settings: OcclusionSettings):
        self._model = model
        self._settings = settings
        self._score = softmax_probability if settings.output == "probability" else target_logits
        self.raw_cost = cost(settings)

    def raw(self, images: Float[Tensor, "batch channel height width"], targets: Int[Tensor, " batch"]) -> RawMaps:
        """Signed mean fall of the score per pixel, and the logits."""
        with torch.no_grad():
            logits = logits_without_graph(self._model, images)
            whole = self._score(logits, targets)
            hidden = baseline_of(images, self._settings.baseline)
            falls = images.new_zeros(len(images), *images.shape[2:], dtype=torch.float64)
            counts = torch.zeros_like(falls[0])
            for rows, columns in self._windows(images.shape[2], images.shape[3]):
                occluded = images.clone()
                occluded[:, :, rows, columns] = hidden[:, :, rows, columns]
                fall = whole - self._score(logits_without_graph(self._model, occluded), targets)
                falls[:, rows, columns] += fall[:, None, None]
                counts[rows, columns] += 1
            return RawMaps(falls / counts.clamp(min=1), logits)

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Where the score falls, over the largest fall; `seeds` are not used."""
        return MethodMaps(over_max(self.raw(images, targets).maps.relu()).float(), self.raw_cost)

    def _windows(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        down, across = (edges(side, self._settings.positions, self._settings.window) for side in (height, width))
        return ((rows, columns) for rows in down for columns in across)


def edges(side: int, positions: int, window: float) -> list[slice]:
    """Equally long, evenly spaced, from the first pixel to the last."""
    length = max(1, round(window * side))
    last = side - length
    starts = [round(number * last / (positions - 1)) for number in range(positions)]
    return [slice(start, start + length) for start in starts]


def cost(settings: OcclusionSettings) -> Cost:
    """One forward for the image and one for each place of the occluder."""
    return Cost(1 + settings.positions**2)


@method(
    name="occlusion",
    summary="how much the probability falls where a square hides the image",
    source="Zeiler and Fergus, ECCV 2014, section 4.2",
    architecture="any",
    settings=OcclusionSettings,
    cost=cost,
    signed=True,
    resolution="grid",
)
def build(model: nn.Module, settings: OcclusionSettings) -> Occlusion:
    return Occlusion(model, settings)
