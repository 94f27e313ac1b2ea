"""Measure how far maps lie off, and move them back: a mirrored image must get a mirrored map, so half the difference is the network's shift.

Convolutions with odd kernels and a stride look at pixels whose centres lie left of and above those of the enlarged map's cells, by (2^n - 1) / 2
pixels after n layers of stride 2, and so the maps made of them lie right and down of what they show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from .explanation import Explanation
from .lazy_torch import torch
from .requests import Steps

if TYPE_CHECKING:
    from .explainer import Explainer

FARTHEST_SHARE = 0.25
"""Largest shift that is looked for, of the map's side."""
MEDIAN_ERROR = 1.2533
"""Standard error of a median over that of a mean, of normal distributions."""
CERTAIN_ERRORS = 2.0
LEAST_PIXELS = 0.1
"""A smaller shift is not corrected."""


@dataclass(frozen=True)
class MapShift:
    """Where maps lie, beside where they belong, in pixels of the network's input; by mirrored images."""

    down: float
    right: float
    images: int
    """Of which the median was taken."""
    down_error: float | None = None
    """Standard error of `down` in pixels; None with fewer than three images."""
    right_error: float | None = None

    @property
    def correction(self) -> tuple[float, float]:
        """Pixels down and right by which maps are to be moved back, to hundredths; 0 where the shift may be chance (as with fewer than three
        images) or is less than `LEAST_PIXELS`."""
        if self.down_error is None or self.right_error is None:
            return 0.0, 0.0
        pairs = ((self.down, self.down_error), (self.right, self.right_error))
        down, right = (
            0.0 if abs(shift) < max(LEAST_PIXELS, CERTAIN_ERRORS * error) else round(shift, 2) for shift, error in pairs
        )
        return down, right


def measure_map_shift(
    explainer: Explainer,
    images: Sequence[Float[torch.Tensor, "channel height width"]],
    targets: Sequence[int],
    seeds: Sequence[int],
) -> MapShift | None:
    """Explain images, their mirror images and themselves upside down, for the same targets.

    Args:
        explainer: Of the run; what it corrects is measured as what is left.
        images: In network-input space.
        targets: Class index of each.
        seeds: Stands for each image in random draws.

    Returns:
        Medians over the images; None where no map came out, or none with a structure.
    """
    from .scheduler import run_all

    turned = [
        (turn, target, seed)
        for image, target, seed in zip(images, targets, seeds, strict=True)
        for turn in (image, image.flip(2), image.flip(1))
    ]
    explanations = run_all(explainer.start(*asked) for asked in turned)
    shifts = []
    for place in range(0, len(explanations), 3):
        plain, mirrored, upside_down = (it.map for it in explanations[place : place + 3])
        if plain is None or mirrored is None or upside_down is None:
            continue
        down, right = displacement(plain.T, upside_down.flip(0).T), displacement(plain, mirrored.flip(1))
        if down is not None and right is not None:
            shifts.append((down / 2, right / 2))
    if not shifts:
        return None
    values = np.array(shifts)
    down, right = np.median(values, axis=0).tolist()
    if len(values) < 3:
        return MapShift(down, right, len(values))
    down_error, right_error = (MEDIAN_ERROR * values.std(axis=0, ddof=1) / np.sqrt(len(values))).tolist()
    return MapShift(down, right, len(values), down_error, right_error)


def displacement(map_: Float[torch.Tensor, "height width"], other: Float[torch.Tensor, "height width"]) -> float | None:
    """Pixels by which a map lies right of another one: the lag at which Pearson's correlation of what overlaps is largest, between lags
    by a parabola. A constant part of the maps, which does not move, counts for nothing. None for maps without structure."""
    first, second = (values.detach().double().cpu().numpy() for values in (map_, other))
    width = first.shape[1]
    most = max(1, round(2 * FARTHEST_SHARE * width))
    lags = np.arange(-min(most, width - 2), min(most, width - 2) + 1)
    values = np.array([_correlation(*_overlap(first, second, int(lag))) for lag in lags])
    if not np.isfinite(values).any():
        return None
    values = np.where(np.isfinite(values), values, -1.0)
    order = np.lexsort((np.abs(lags), -values.round(12)))  # of equally good lags the smallest
    peak = int(order[0])
    if values[peak] <= 0 or not 0 < peak < len(lags) - 1:
        return float(lags[peak]) if values[peak] > 0 else None
    before, at, after = values[peak - 1 : peak + 2]
    curve = before - 2 * at + after
    return float(lags[peak] + (0.0 if curve >= 0 else 0.5 * (before - after) / curve))


def moved_map(
    map_: Float[torch.Tensor, "*map height width"], down: float, right: float
) -> Float[torch.Tensor, "*map height width"]:
    """What the map shows, moved down and right by so many pixels, between pixels linearly; what comes in repeats the border."""
    for axis, by in ((-2, down), (-1, right)):
        side = map_.shape[axis]
        places = (torch.arange(side, device=map_.device, dtype=torch.float64) - by).clamp(0, side - 1)
        low = places.floor().long()
        share = (places - low).to(map_.dtype)
        share = share[:, None] if axis == -2 else share
        high = (low + 1).clamp(max=side - 1)
        map_ = torch.lerp(map_.index_select(axis, low), map_.index_select(axis, high), share)
    return map_


def corrected(steps: Steps[Explanation], down: float, right: float) -> Steps[Explanation]:
    """A conversation whose maps are moved back by so many pixels."""
    explanation = yield from steps
    return moved_back(explanation, down, right)


def moved_back(explanation: Explanation, down: float, right: float) -> Explanation:
    """The explanation with its maps moved up and left by so many pixels."""
    if explanation.map is None or not (down or right):
        return explanation
    layers = explanation.layer_maps
    return replace(
        explanation,
        map=moved_map(explanation.map, -down, -right),
        layer_maps=None if layers is None else moved_map(layers, -down, -right),
    )


def _overlap(first: np.ndarray, second: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    width = first.shape[1]
    return first[:, max(lag, 0) : width + min(lag, 0)], second[:, max(-lag, 0) : width - max(lag, 0)]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 1e-12 else np.nan
