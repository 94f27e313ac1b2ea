"""Fills removed pixels from their surroundings: noisy linear imputation (Rong et al., ICML 2022, section 5).

Every removed pixel becomes the weighted mean of its 8 neighbours, direct ones 1/6 and diagonal ones 1/12; the removed ones among
them are unknowns too, so one symmetric positive definite system per hole: solved directly on a CPU, and by conjugate gradients, all
holes of several images together, on an accelerator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 1e-6
"""Of the residual over the right-hand side, in float64: leaves an error near 1e-5 where the noise that is added is 1e-2."""
UNWATCHED = 8
"""Steps of conjugate gradients between two looks at whether an accelerator is done; a solved system stands still meanwhile."""


def impute(
    image: Float[Tensor, "channel height width"] | Float[Tensor, "variant channel height width"],
    removed: Bool[Tensor, "variant height width"],
    noise: Float[Tensor, "variant channel height width"] | None = None,
    *,
    max_steps: int | None = None,
) -> tuple[Float[Tensor, "variant channel height width"], Bool[Tensor, " variant"]]:
    """Replace the removed pixels of an image, in several ways at once, or of one image for each variant.

    Args:
        image: In network-input space.
        removed: Which pixels each variant lacks; at least one must stay.
        noise: Is added to what was filled in.
        max_steps: Of conjugate gradients, which are then used on a CPU, too; by default far more than a hole as large as the image
            needs.

    Returns:
        The filled images, and for each whether its system was solved to the tolerance; it was not where every pixel is removed.
    """
    images = image.expand(len(removed), *image.shape[-3:])
    if image.device.type == "cpu" and max_steps is None:
        filled = torch.stack([fill_directly(*each) for each in zip(images, removed, strict=True)]).to(image.dtype)
        solved = filled.flatten(1).isfinite().all(dim=1)
    else:
        steps = 20 * (image.shape[-2] + image.shape[-1]) + 100 if max_steps is None else max_steps
        filled, solved = solve(images.double(), removed[:, None].double(), steps)
        filled = filled.to(image.dtype)
    solved = solved & ~removed.flatten(1).all(dim=1)
    return torch.where(removed[:, None], filled if noise is None else filled + noise, image), solved


def fill_directly(
    image: Float[Tensor, "channel height width"], removed: Bool[Tensor, "height width"]
) -> Float[Tensor, "channel height width"]:
    """The image with its hole filled, float64; as it is where nothing stayed."""
    from .sparse_imputation import fill_hole

    image, hole = image.double(), removed.double()
    if bool(removed.all()):
        return image
    weight = neighbour_sum(torch.ones_like(hole)[None, None])[0, 0]
    return fill_hole(image, removed, weight, neighbour_sum((image * (1 - hole))[None])[0])


def solve(
    image: Float[Tensor, "variant channel height width"], hole: Float[Tensor, "variant 1 height width"], steps: int
) -> tuple[Float[Tensor, "variant channel height width"], Bool[Tensor, " variant"]]:
    """What the holes hold, and whether every channel's system was solved."""
    known = image * (1 - hole)
    weight = neighbour_sum(torch.ones_like(hole[:1]))
    filled, solved = conjugate_gradients(hole, weight, hole * neighbour_sum(known), hole * guess(known, hole), steps)
    return filled, solved.all(dim=1)


def conjugate_gradients(
    hole: Float[Tensor, "variant 1 height width"],
    weight: Float[Tensor, "1 1 height width"],
    target: Float[Tensor, "variant channel height width"],
    start: Float[Tensor, "variant channel height width"],
    steps: int,
) -> tuple[Float[Tensor, "variant channel height width"], Bool[Tensor, "variant channel"]]:
    """Solve `weight * x - hole * neighbour_sum(x) = target` inside the hole, preconditioned on all scales.

    Every variant and channel is a system of its own, which stands still once it is solved: what else is in the batch does not
    change it.
    """
    x = start.clone()
    residual = target - hole * (weight * x - neighbour_sum(x))
    limit = (TOLERANCE * norms(target)).clamp(min=1e-300)
    scaled = precondition(residual, hole, weight)
    direction = scaled
    energy = dots(residual, scaled)
    watched = 1 if hole.device.type == "cpu" else UNWATCHED
    for step in range(steps):
        running = norms(residual) > limit
        if step % watched == 0 and not bool(running.any()):
            break
        image = hole * (weight * direction - neighbour_sum(direction))
        length = torch.where(running, energy / dots(direction, image), 0)[..., None, None]
        x += length * direction
        residual -= length * image
        scaled = precondition(residual, hole, weight)
        previous, energy = energy, dots(residual, scaled)
        direction = torch.where(
            running[..., None, None], scaled + (energy / previous)[..., None, None] * direction, direction
        )
    return x, norms(target - hole * (weight * x - neighbour_sum(x))) <= 10 * limit


def precondition(
    residual: Float[Tensor, "variant channel height width"],
    hole: Float[Tensor, "variant 1 height width"],
    weight: Float[Tensor, "1 1 height width"],
) -> Float[Tensor, "variant channel height width"]:
    """The diagonal's inverse plus a correction on blocks of 2, 4, 8, ... pixels (Bramble, Pasciak and Xu, 1990).

    Neighbours alone carry a correction one pixel per step, so that a large hole would take as many steps as it is wide.
    """
    return residual / weight + hole * block_corrections(residual, 0.5)


def block_corrections(
    residual: Float[Tensor, "variant channel height width"], scale: float
) -> Float[Tensor, "variant channel height width"]:
    """Every pixel's sum over the blocks that hold it of the block's summed residual, halved from one size to the next."""
    height, width = residual.shape[-2:]
    if height == 1 and width == 1:
        return torch.zeros_like(residual)
    sums = F.avg_pool2d(residual, 2, ceil_mode=True, divisor_override=1)
    blocks = scale * sums + block_corrections(sums, scale / 2)
    return blocks.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)[..., :height, :width]


def neighbour_sum(values: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
    """Weighted sum over the 8 neighbours, which weigh 1 in all inside the image and less at its border."""
    padded = F.pad(values, (1, 1, 1, 1))
    rows = (padded[..., :-2, :] + padded[..., 2:, :]).add_(padded[..., 1:-1, :], alpha=2)
    return (rows[..., :-2] + rows[..., 2:]).add_(rows[..., 1:-1], alpha=2).sub_(values, alpha=4).div_(12)


def guess(
    known: Float[Tensor, "variant channel height width"], hole: Float[Tensor, "variant 1 height width"]
) -> Float[Tensor, "variant channel height width"]:
    """A coarse filling to start from: every removed pixel takes the mean of the smallest halved block that knows a pixel."""
    height, width = known.shape[-2:]
    if height == 1 and width == 1:
        return known
    sums, counts = (F.avg_pool2d(part, 2, ceil_mode=True) for part in (known, 1 - hole))
    means = torch.where(counts > 0, sums / counts, 0)
    coarse = guess(means, (counts == 0).to(hole.dtype))
    coarse = torch.where(counts > 0, means, coarse)
    full = coarse.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)[..., :height, :width]
    return torch.where(hole > 0, full, known)


def dots(
    first: Float[Tensor, "variant channel height width"], second: Float[Tensor, "variant channel height width"]
) -> Float[Tensor, "variant channel"]:
    """Inner product of every system's two vectors."""
    return (first * second).sum(dim=(2, 3))


def norms(vectors: Float[Tensor, "variant channel height width"]) -> Float[Tensor, "variant channel"]:
    """Length of every system's vector."""
    return dots(vectors, vectors).sqrt()
