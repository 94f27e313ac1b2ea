"""Regions to compare a region with: of its shape and area, elsewhere in the image, and where asked away from what a map marks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CONTROLS = 8
"""Control regions of an image."""
MOST_OVERLAP = 0.1
"""Share of the region that a control region may cover."""


def control_regions(
    region: Bool[Tensor, "height width"],
    generator: torch.Generator,
    *,
    count: int = CONTROLS,
    avoid: Float[Tensor, "height width"] | None = None,
) -> Bool[Tensor, "control height width"]:
    """The region moved to other places, drawn at random; arguments as `control_moves`."""
    moves = control_moves(region, generator, count=count, avoid=avoid)
    moved = [torch.roll(region, (int(down), int(right)), (0, 1)) for down, right in moves]
    return torch.stack(moved) if moved else region.new_zeros(0, *region.shape)


def control_moves(
    region: Bool[Tensor, "height width"],
    generator: torch.Generator,
    *,
    count: int = CONTROLS,
    avoid: Float[Tensor, "height width"] | None = None,
) -> Int[Tensor, "control 2"]:
    """How far (down, right) the region is moved for each control region, circularly.

    Moves that keep its bounding box inside the image come first; where none is far enough, it continues at the opposite edge.

    Args:
        region: On the CPU.
        generator: Draws the places.
        count: Control regions, at least 1.
        avoid: A map whose mass control regions keep away from: they are drawn from the half of the places that hold least of it.

    Returns:
        At most `count`; none where the region is empty or covers so much that every place overlaps it by more than `MOST_OVERLAP`.
    """
    width = region.shape[1]
    if not bool(region.any()):
        return torch.zeros(0, 2, dtype=torch.long)
    area = int(region.sum())
    apart = (correlated(region, region.double()) / area) < MOST_OVERLAP + 1e-9
    inside = places_inside(region)
    chosen = apart & inside if bool((apart & inside).any()) else apart
    places = chosen.flatten().nonzero()[:, 0]
    if avoid is not None and len(places):
        mass = correlated(region, avoid.double()).flatten()[places]
        places = places[mass.sort(stable=True).indices[: -(-len(places) // 2)]]
    drawn = places[torch.randperm(len(places), generator=generator)[:count]]
    return torch.stack([drawn // width, drawn % width], dim=1)


def correlated(
    region: Bool[Tensor, "height width"], values: Float[Tensor, "height width"]
) -> Float[Tensor, "height width"]:
    """Sum of the values in the region after every circular move, by the move (down, right)."""
    spectrum = torch.fft.rfft2(region.double()).conj() * torch.fft.rfft2(values)
    height, width = region.shape
    return torch.fft.irfft2(spectrum, s=(height, width)).clamp(min=0)


def places_inside(region: Bool[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """Which circular moves keep the region's bounding box inside the image, by the move (down, right)."""
    axes = []
    for axis, side in enumerate(region.shape):
        along = region.any(dim=1 - axis).nonzero()[:, 0]
        first, last = int(along[0]), int(along[-1])
        moves = torch.arange(side)
        axes.append((moves < side - last) | (moves >= side - first))
    return axes[0][:, None] & axes[1][None, :]


def jittered_moves(
    region: Bool[Tensor, "height width"], count: int, reach: int, generator: torch.Generator
) -> Int[Tensor, "move 2"]:
    """Random moves (down, right) of at most `reach` pixels that keep the region's bounding box inside the image."""
    moves = torch.zeros(count, 2, dtype=torch.long)
    for axis, side in enumerate(region.shape):
        along = region.any(dim=1 - axis).nonzero()[:, 0]
        if len(along):
            low, high = max(-reach, -int(along[0])), min(reach, side - 1 - int(along[-1]))
            moves[:, axis] = torch.randint(low, high + 1, (count,), generator=generator)
    return moves
