"""RISE, Randomized Input Sampling for Explanation (Petsiuk et al., BMVC 2018, arXiv 1806.07421)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float

from ..lazy_torch import torch
from ..random import sample_generator
from ..requests import Job
from .mask_method import MaskMethod, Masks
from .protocol import Cost, method, require, setting

CHUNK = 64
"""Masks made at once when they are added up: always as many, so that the sum's bits are always the same."""


@method(
    name="rise",
    summary="random masks, each counted by the score that it leaves",
    source="Petsiuk et al., BMVC 2018, eq. 6, masks as in section 3.2",
    architecture="any",
    cost=lambda settings: Cost(1 + settings.masks),
    resolution="grid",
    stochastic=True,
    packed=True,
    dense=True,
)
class RISE(MaskMethod):
    """Random grids, enlarged and shifted, as masks."""

    masks: int = setting(default=4000, text="random masks per image, at least 1: forwards")
    grid: int = setting(default=7, text="cells of a mask along each side, at least 2")
    p: float = setting(default=0.5, text="probability that a cell is shown, in (0, 1)")
    seed: int = setting(default=0, text="of the masks, at least 0; each image has its own")

    def check(self) -> None:
        require(self.masks >= 1, f"masks must be at least 1, got {self.masks}")
        require(self.grid >= 2, f"grid must be at least 2, got {self.grid}")
        require(0 < self.p < 1, f"p must be in (0, 1), got {self.p}")
        require(self.seed >= 0, f"seed must be at least 0, got {self.seed}")

    def draw(self, image: torch.Tensor, target: int, seed: int, layers: tuple[torch.Tensor, ...]) -> RandomMasks:
        return RandomMasks(image, target, self, seed)


@dataclass(frozen=True)
class GridAxis:
    """One side of every mask: where each pixel lies between two cells."""

    near: torch.Tensor
    """Cell before the pixel `(mask, pixel)`."""
    far: torch.Tensor
    share: Float[torch.Tensor, "mask pixel"]
    """Of the cell behind it."""

    @classmethod
    def of(cls, shifts: torch.Tensor, grid: int, pixels: int) -> GridAxis:
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

    def __init__(self, image: torch.Tensor, target: int, settings: RISE, seed: int):
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

    def fill(self, start: int, out: torch.Tensor) -> None:
        """`I * M` for the masks from `start` on."""
        torch.mul(self._image, self._masks(slice(start, start + len(out)))[:, None], out=out)

    def total(self) -> Float[torch.Tensor, "height width"]:
        """Sum of score times mask (eq. 6 but for the factor 1 / (N p), which min-max removes); float64."""
        total = torch.zeros(self._image.shape[1:], dtype=torch.float64, device=self._image.device)
        for start in range(0, self.job.count, CHUNK):
            part = slice(start, start + CHUNK)
            total += (self.job.scores[part].double()[:, None, None] * self._masks(part)).sum(dim=0)
        return total

    def _masks(self, part: slice) -> Float[torch.Tensor, "mask height width"]:
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
