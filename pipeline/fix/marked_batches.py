"""Training images with marks removed and pasted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...engine.interventions.region_fill import FillName
from ..verdict.counterfactual_sets import Mark, with_mark, without_mark
from ..verdict.image_decisions import LoadedImages

FILLS: tuple[FillName, ...] = ("mean", "blur")
"""What takes a removed mark's place in training. The verdict fills from the surroundings, so that no model learns its way of filling."""


def removed_and_pasted(
    loaded: LoadedImages, marks: Mapping[int, Mark], share: float, random: np.random.Generator
) -> Float[Tensor, "image channel height width"]:
    """Marks removed from a share of their carriers; the mark of a random other class pasted into a share of the others."""
    inputs = loaded.inputs.clone()
    drawn = random.random(len(loaded)) < share
    fill, seed = FILLS[random.integers(len(FILLS))], int(random.integers(2**31))
    given = random.choice(list(marks), len(loaded))
    carries = np.array([image.mark is not None for image in loaded.images])
    if (chosen := drawn & carries).any():
        places = np.flatnonzero(chosen)
        inputs[torch.from_numpy(places)] = without_mark(loaded.taken(places), marks, fill)
    for label, mark in marks.items():
        labels = np.array([image.label for image in loaded.images])
        places = np.flatnonzero(drawn & ~carries & (given == label) & (labels != label))
        if len(places):
            inputs[torch.from_numpy(places)] = with_mark(loaded.taken(places), mark, seed=seed)
    return inputs
