"""Measure how far maps lie off: a mirrored image must get a mirrored map, so half the difference is the method's and the network's shift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...engine.explainer import Explainer
from ...engine.scheduler import run_all
from .forecast_facts import MapShift


def measure_map_shift(
    explainer: Explainer,
    images: Sequence[Float[Tensor, "channel height width"]],
    targets: Sequence[int],
    seeds: Sequence[int],
) -> MapShift | None:
    """Explain images, their mirror images and themselves upside down, for the same targets; None where no map came out.

    Strided convolutions with odd kernels shift feature maps by a part of their stride, all in one direction, and so the maps made of them.
    """
    turned = [
        (turn, target, seed)
        for image, target, seed in zip(images, targets, seeds, strict=True)
        for turn in (image, image.flip(2), image.flip(1))
    ]
    explanations = run_all(explainer.start(*asked) for asked in turned)
    shifts = []
    for place in range(0, len(explanations), 3):
        plain, mirrored, upside_down = (it.map for it in explanations[place : place + 3])
        if plain is not None and mirrored is not None and upside_down is not None:
            down, right = centroid(plain)
            shifts.append(((down - centroid(upside_down.flip(0))[0]) / 2, (right - centroid(mirrored.flip(1))[1]) / 2))
    if not shifts or not np.isfinite(shifts).all():
        return None
    down, right = np.median(np.array(shifts), axis=0)
    return MapShift(float(down), float(right), len(shifts))


def centroid(map_: Float[Tensor, "height width"]) -> tuple[float, float]:
    """Row and column of a map's centre of mass, counted from 0."""
    mass = map_.double().cpu()
    total = mass.sum()
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in mass.shape)
    return float((mass.sum(dim=1) * rows).sum() / total), float((mass.sum(dim=0) * columns).sum() / total)
