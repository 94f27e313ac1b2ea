"""Does the map stay when the image hardly changes, and does it say what removing a part costs? Both after Yeh et al."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .faithfulness import WHOLE
from .protocol import Evidence, ExtraExplanations, Probe, Subject, Variants, metric, only_where, varies

YEH_PAPER = "Yeh et al., NeurIPS 2019"
DRAWS = 10
RADIUS = 0.02
LARGEST_SIDE = 10 / 28
"""Of the shorter side of the image: Yeh et al. remove squares of 1 to 10 pixels from images of 28."""


def disturbed(subject: Subject) -> list[tuple[Tensor, int]]:
    """The image with 10 draws of uniform noise, to be explained for the same class."""
    noise = torch.rand(DRAWS, *subject.image.shape, generator=subject.generator("max_sensitivity"))
    return [(subject.image + (2 * draw - 1).mul(RADIUS).to(subject.image), subject.target) for draw in noise]


def without_squares(subject: Subject) -> Variants:
    """The image with one of 10 squares set to 0; the notes are the sum of S in each square."""
    squares = draw_squares(subject)
    notes = (squares * subject.map).sum(dim=(1, 2), dtype=torch.float64)
    return Variants(
        lambda start, out: torch.mul(subject.image, ~squares[start : start + len(out), None], out=out), notes
    )


def draw_squares(subject: Subject) -> Tensor:
    """10 squares as masks `(10, height, width)`: the side uniform from 1 to 10/28 of the shorter one, the place uniform."""
    height, width = subject.map.shape
    generator = subject.generator("infidelity")
    largest = max(1, round(LARGEST_SIDE * min(height, width)))
    masks = torch.zeros(DRAWS, height, width, dtype=torch.bool)
    for mask in masks:
        side = draw_up_to(largest, generator) + 1
        top, left = draw_up_to(height - side + 1, generator), draw_up_to(width - side + 1, generator)
        mask[top : top + side, left : left + side] = True
    return masks.to(subject.map.device)


def draw_up_to(count: int, generator: torch.Generator) -> int:
    """One of 0, 1, ..., count - 1."""
    return int(torch.randint(count, (), generator=generator))


DISTURBED = ExtraExplanations("disturbed", DRAWS, disturbed)
WITHOUT_SQUARES = Probe("without_squares", DRAWS, without_squares)


@metric(
    version=1, unit="relative distance", range=(0.0, float("inf")), better="lower", needs="model",
    source=YEH_PAPER + ", section 4", explains=(DISTURBED,),
)  # fmt: skip
def max_sensitivity(evidence: Evidence) -> Float[Tensor, " batch"]:
    """max over 10 draws d of ||S(x + d) - S(x)|| / ||S(x)||, d uniform in [-0.02, 0.02] per value in network-input space.

    Not defined where one of the ten has no map.
    """
    change = (evidence.explained[DISTURBED.name] - evidence.maps[:, None]).double().flatten(2).norm(dim=2)
    size = evidence.maps.double().flatten(1).norm(dim=1)
    return only_where(varies(evidence.maps), change.amax(dim=1) / size)


@metric(
    version=1, unit="squared probability", range=(0.0, 1.0), better="lower", needs="model",
    baseline="0 in network-input space", source=YEH_PAPER + ", section 2, scaled as in the authors' code",
    probes=(WHOLE, WITHOUT_SQUARES),
)  # fmt: skip
def infidelity(evidence: Evidence) -> Float[Tensor, " batch"]:
    """min over b of mean over 10 squares of (b * sum of S in the square - (p - p without the square))^2.

    The scale b is the best for each image, so that the map's own scale does not matter. Sides are drawn from 1 to 10/28 of the
    shorter side of the image.
    """
    loss = (evidence.probes[WHOLE.name] - evidence.probes[WITHOUT_SQUARES.name]).double()
    mass = evidence.notes[WITHOUT_SQUARES.name].double()
    power = mass.square().sum(dim=1)
    scale = torch.where(power > 0, (mass * loss).sum(dim=1) / power, 0)
    return only_where(varies(evidence.maps), (scale[:, None] * mass - loss).square().mean(dim=1))
