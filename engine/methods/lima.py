"""LiMA, Less input is More faithful for Attribution (Chen et al. 2025, arXiv 2504.00470): regions in the order a greedy search takes them.

A set of regions is worth 20 p(shown alone) + 5 (1 - p(hidden)), p the target's probability. From both ends at once: the region that adds
most to the set of important ones is taken next, and of the `pending` regions that add least the one that leaves the set of
unimportant ones worth least. Important ones come first in the order, unimportant ones last. As the authors' released code has it, which
adds 0.01 times how sure the model is of any class: left out, as it can decide ties alone. Ours: regions are cells of a grid (superpixels there), and a
region's value falls evenly with its place in the order, 1 for the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Bool, Float

from ..explainer import Explainer
from ..explanation import Explanation
from ..fill import baseline_of
from ..fill_kinds import BASELINES
from ..lazy_torch import torch
from ..requests import Job, Score, Steps
from ..transfer import to_host
from .integrated_gradients import BASELINE_TEXT
from .protocol import Cost, method, require, require_one_of, setting

SHOWN_WEIGHT, HIDDEN_WEIGHT = 20.0, 5.0


def cost(settings: Any) -> Cost:
    """The image, and two forwards for every set that the search looks at."""
    left, looks = settings.grid**2, 0
    while left > 1:
        looks += left
        if left > settings.pending:
            looks += settings.pending
            left -= 1
        left -= 1
    return Cost(1 + 2 * looks)


@method(
    name="lima",
    summary="parts of the image in the order of a greedy search from both ends; forwards only",
    source="Chen et al. 2025, arXiv 2504.00470, as its code has it",
    status="code",
    completed="cells of a grid for superpixels; value by place in the order; no entropy term",
    architecture="any",
    cost=cost,
    resolution="grid",
    packed=True,
    dense=True,
)
class LiMA(Explainer):
    """Regions by a bidirectional greedy search."""

    grid: int = setting(default=7, text="cells along each side, at least 2; forwards grow with its fourth power")
    pending: int = setting(default=8, text="regions among which the next unimportant one is looked for, at least 1")
    baseline: Literal["zero", "mean", "blur"] = setting(default="zero", text=BASELINE_TEXT)

    def check(self) -> None:
        require(self.grid >= 2, f"grid must be at least 2, got {self.grid}")
        require(self.pending >= 1, f"pending must be at least 1, got {self.pending}")
        require_one_of("baseline", self.baseline, BASELINES)

    def explain_image(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None, seed: int
    ) -> Steps[Explanation]:
        logits = yield self.rows_of(self.read_logits, image, target, seed)
        if logits.target is None or logits.failure is not None:
            return logits.explanation()
        cells = grid_cells((image.shape[1], image.shape[2]), self.grid).to(image.device)
        hidden = baseline_of(image[None], self.baseline)[0]
        first: list[int] = []
        last: list[int] = []
        left = list(range(self.grid**2))
        forwards, changes = 1 if self.confidence.scene is None else 2, False
        while len(left) > 1:
            values = yield from self._worth(image, hidden, cells, logits.target, [[*first, each] for each in left])
            forwards += 2 * len(left)
            changes = changes or max(values) > min(values)
            best = left[values.index(max(values))]
            if len(left) > self.pending:
                rest = [place for place in range(len(left)) if left[place] != best]
                low = [left[place] for place in sorted(rest, key=lambda place: values[place])[: self.pending]]
                worths = yield from self._worth(image, hidden, cells, logits.target, [[*last, each] for each in low])
                forwards += 2 * len(low)
                worst = low[worths.index(min(worths))]
                last.append(worst)
                left.remove(worst)
            first.append(best)
            left.remove(best)
        order = [*first, *left, *reversed(last)]
        places = torch.empty(len(order), device=image.device)
        places[order] = 1 - torch.arange(len(order), device=image.device) / len(order)
        map_ = places[cells] if changes else torch.zeros(image.shape[1:], device=image.device)
        return logits.explanation(map_, n_forwards=forwards)

    def _worth(
        self, image: torch.Tensor, hidden: torch.Tensor, cells: torch.Tensor, target: int, sets: Sequence[list[int]]
    ) -> Steps[list[float]]:
        """Of every set of regions."""
        member = torch.zeros(len(sets), self.grid**2, dtype=torch.bool, device=image.device)
        for row, regions in zip(member, sets, strict=True):
            row[regions] = True
        jobs = [variants(image, hidden, cells, target, shown) for shown in (member, ~member)]
        yield Score(self.scorer, image, jobs)
        alone, without = (job.scores.double() for job in jobs)
        return to_host(SHOWN_WEIGHT * alone + HIDDEN_WEIGHT * (1 - without))


def variants(
    image: torch.Tensor, hidden: torch.Tensor, cells: torch.Tensor, target: int, shown: Bool[torch.Tensor, "row region"]
) -> Job:
    """The image with only these regions shown."""

    def fill(start: int, out: torch.Tensor) -> torch.Tensor:
        visible = shown[start : start + len(out)][:, cells][:, None]
        return torch.where(visible, image, hidden, out=out)

    return Job(len(shown), target, fill)


def grid_cells(size: tuple[int, int], grid: int) -> torch.Tensor:
    """The cell of every pixel `(height, width)`, by rows; cells as equal as whole pixels allow."""
    down, across = ((torch.arange(side) * grid).div(side, rounding_mode="floor") for side in size)
    return grid * down[:, None] + across
