"""Occlusion (Zeiler and Fergus, ECCV 2014, section 4.2, arXiv 1311.2901)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from jaxtyping import Float, Int

from ..fill import baseline_of
from ..fill_kinds import BASELINES
from ..lazy_torch import torch
from ..scoring.confidence import softmax_probability
from .batch_method import BatchMethod, MethodMaps, predicted_where_negative
from .cams import RawMaps
from .integrated_gradients import BASELINE_TEXT
from .layer_gradients import target_logits
from .normalise import over_max
from .passes import logits_without_graph
from .protocol import Cost, method, require, require_one_of, setting


def edges(side: int, positions: int, window: float) -> list[slice]:
    """Equally long, evenly spaced, from the first pixel to the last."""
    length = max(1, round(window * side))
    last = side - length
    starts = [round(number * last / (positions - 1)) for number in range(positions)]
    return [slice(start, start + length) for start in starts]


def cost(settings: Any) -> Cost:
    """One forward for the image and one for each place of the occluder."""
    return Cost(1 + settings.positions**2)


@method(
    name="occlusion",
    summary="how much the probability falls where a square hides the image",
    source="Zeiler and Fergus, ECCV 2014, section 4.2",
    architecture="any",
    cost=cost,
    signed=True,
    resolution="grid",
    dense=True,
)
class Occlusion(BatchMethod):
    """How much the target's probability falls when a square hides part of the image; a pixel has the mean over squares that hide it."""

    reads_logits = True

    positions: int = setting(
        default=13, text="places of the occluder along each side, at least 2: its square is the number of forwards"
    )
    window: float = setting(default=1 / 7, text="side of the occluder as a share of the image's side, in (0, 1)")
    baseline: Literal["zero", "mean", "blur"] = setting(default="zero", text=BASELINE_TEXT)
    output: Literal["probability", "logit"] = setting(
        default="probability", text="whose fall is measured: probability or logit"
    )

    def check(self) -> None:
        require(self.positions >= 2, f"positions must be at least 2, got {self.positions}")
        require(0 < self.window < 1, f"window must be in (0, 1), got {self.window}")
        require_one_of("baseline", self.baseline, BASELINES)
        require_one_of("output", self.output, ("probability", "logit"))

    def raw(
        self, images: Float[torch.Tensor, "batch channel height width"], targets: Int[torch.Tensor, " batch"]
    ) -> RawMaps:
        """Signed mean fall of the score per pixel, and the logits."""
        with torch.no_grad():
            logits = logits_without_graph(self.model, images)
            targets = predicted_where_negative(targets, logits)
            score = self._score_of(logits, targets)
            whole = score(logits)
            hidden = baseline_of(images, self.baseline)
            falls = images.new_zeros(len(images), *images.shape[2:], dtype=torch.float64)
            counts = torch.zeros_like(falls[0])
            for rows, columns in self._windows(images.shape[2], images.shape[3]):
                occluded = images.clone()
                occluded[:, :, rows, columns] = hidden[:, :, rows, columns]
                fall = whole - score(logits_without_graph(self.model, occluded))
                falls[:, rows, columns] += fall[:, None, None]
                counts[rows, columns] += 1
            return RawMaps(falls / counts.clamp(min=1), logits)

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Where the score falls, over the largest fall; `seeds` are not used."""
        raw = self.raw(images, targets)
        return MethodMaps(over_max(raw.maps.relu()).float(), cost(self), logits=raw.logits)

    def _score_of(self, logits: torch.Tensor, targets: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """From logits of the occluded images to what falls; of a dense model in what the unmasked ones (`logits`) have of the target."""
        if self.confidence.scene is None:
            value = softmax_probability if self.output == "probability" else target_logits
            return lambda output: value(output, targets)
        scenes = self.scenes_in(logits)
        value = self.confidence.value if self.output == "probability" else target_logits
        return lambda output: value(output, targets, scenes)

    def _windows(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        down, across = (edges(side, self.positions, self.window) for side in (height, width))
        return ((rows, columns) for rows in down for columns in across)
