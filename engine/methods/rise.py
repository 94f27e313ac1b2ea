"""RISE, Randomized Input Sampling for Explanation (Petsiuk et al., BMVC 2018, arXiv 1806.07421), all images sharing mask batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..random import sample_generator
from ..scoring.masked_scorer import Job
from ..scoring.scoring_options import Scoring
from .one_by_one import packed_method
from .packed_settings import RiseSettings
from .protocol import Cost
from .sampled import Masks, Sampled

CHUNK = 64
"""Masks made at once when they are added up: always as many, so that the sum's bits are always the same."""


@dataclass(frozen=True)
class GridAxis:
    """One side of every mask: where each pixel lies between two cells."""

    near: Tensor
    """Cell before the pixel `(mask, pixel)`."""
    far: Tensor
    share: Float[Tensor, "mask pixel"]
    """Of the cell behind it."""

    @classmethod
    def of(cls, shifts: Tensor, grid: int, pixels: int) -> GridAxis:
        """A grid enlarged to `grid + 1` cells of ceil(pixels / grid) pixels, of which `pixels` are seen from the shift on."""
        cell = -(-pixels // grid)
        place = (shifts[:, None] + torch.arange(pixels, device=shifts.device) + 0.5) * (
            grid / ((grid + 1) * cell)
        ) - 0.5
        place = place.clamp(0, grid - 1)
        near = place.floor().long()
        return cls(near, (near + 1).clamp(max=grid - 1), (place - near).float())

    def some(self, part: slice) -> GridAxis:
        return GridAxis(self.near[part], self.far[part], self.share[part])


class RandomMasks(Masks):
    """The masks of one image, drawn at once as grids and enlarged just in time.

    Args:
        image: Network input.
        target: The class.
        settings: How many, of how many cells.
        seed: Of the image.
    """

    def __init__(self, image: Tensor, target: int, settings: RiseSettings, seed: int):
        generator = sample_generator(settings.seed, seed, "rise")
        count, grid = settings.masks, settings.grid
        self._image = image
        shown = torch.rand(count, grid, grid, generator=generator) < settings.p
        shifts = [torch.randint(-(-side // grid), (count,), generator=generator) for side in image.shape[1:]]
        self._cells = shown.to(image)
        self._down, self._across = (
            GridAxis.of(shift.to(image.device), grid, side) for shift, side in zip(shifts, image.shape[1:], strict=True)
        )
        self.job = Job(count, target, self.fill)

    def fill(self, start: int, out: Tensor) -> None:
        """`I * M` for the masks from `start` on."""
        torch.mul(self._image, self._masks(slice(start, start + len(out)))[:, None], out=out)

    def total(self) -> Float[Tensor, "height width"]:
        """Sum of score times mask (eq. 6 but for the factor 1 / (N p), which min-max removes); float64."""
        total = torch.zeros(self._image.shape[1:], dtype=torch.float64, device=self._image.device)
        for start in range(0, self.job.count, CHUNK):
            part = slice(start, start + CHUNK)
            total += (self.job.scores[part].double()[:, None, None] * self._masks(part)).sum(dim=0)
        return total

    def _masks(self, part: slice) -> Float[Tensor, "mask height width"]:
        cells, down, across = self._cells[part], self._down.some(part), self._across.some(part)
        width = cells.shape[2]
        rows = torch.lerp(
            cells.gather(1, down.near[:, :, None].expand(-1, -1, width)),
            cells.gather(1, down.far[:, :, None].expand(-1, -1, width)),
            down.share[:, :, None].to(cells),
        )
        height = rows.shape[1]
        return torch.lerp(
            rows.gather(2, across.near[:, None].expand(-1, height, -1)),
            rows.gather(2, across.far[:, None].expand(-1, height, -1)),
            across.share[:, None].to(cells),
        )


@packed_method(
    name="rise",
    summary="random masks, each counted by the score that it leaves",
    source="Petsiuk et al., BMVC 2018, eq. 6, masks as in section 3.2",
    architecture="any",
    settings=RiseSettings,
    cost=lambda settings: Cost(1 + settings.masks),
    resolution="grid",
    stochastic=True,
)
def pack(model: nn.Module, settings: RiseSettings, scoring: Scoring) -> Sampled:
    return Sampled(model, scoring, lambda one: RandomMasks(one.image, one.target, settings, one.seed), budget_of="rise")
