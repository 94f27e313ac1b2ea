"""Find a mark at every place of an image: by painted examples, or by what tells marked images from clean ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from ...engine.fill import gaussian_blur

SEEN_IMAGES = 24
"""Painted, and clean, images that a detector learns from."""
CELLS = 300
"""Cells of an image that it learns from, besides those of the mark."""
SHAPES = 8
"""Painted regions that are tried at every place of an image."""
KEPT_SHARE = 0.3
"""Of a direction's largest relevance, from which on a pixel belongs to the mark (Reveal to Revise)."""
BLUR_SHARE = 8 / 224
"""Sigma of the blur before that, over the image's shorter side (Reveal to Revise)."""
SETTLED_SHARE = 1 / 12
"""Of the image's side: how far a region is moved to where the painted pixels are, at most; and by half of its own side."""
CLEARER = 0.5
"""Share of the squared difference to the painted pixels that must be left where a region is moved to."""
Columns = Float[np.ndarray, "feature h w"]
Image = Float[np.ndarray, "channel height width"]
Region = Bool[np.ndarray, "height width"]


@dataclass(frozen=True, eq=False)
class MarkDetector:
    """A linear function of hypercolumns that is positive on the mark."""

    weights: Float[np.ndarray, " feature"]
    offset: float
    shapes: tuple[Region, ...] = ()
    """Painted regions at input size; none where it was learnt without."""

    def logits(self, columns: Columns) -> Float[np.ndarray, "h w"]:
        return np.tensordot(self.weights, columns, axes=1) + self.offset


def detector_by_painting(
    columns: Sequence[Columns], regions: Sequence[Region], clean: Sequence[Columns], *, seed: int = 0
) -> MarkDetector | None:
    """Logistic regression on the cells of painted images, inside against outside, and on cells of clean images.

    Args:
        columns: Hypercolumns of painted images.
        regions: What was painted in them, at input size.
        clean: Hypercolumns of images without the mark.
        seed: Of the cells that are looked at.

    Returns:
        None where no painted region covers a cell.
    """
    random = np.random.default_rng(seed)
    inside, outside = [], []
    for values, region in zip(columns[:SEEN_IMAGES], regions[:SEEN_IMAGES], strict=True):
        share = area_share(region, values.shape[1:])
        marked = share >= min(0.5, float(share.max(initial=0.0)))
        flat, marked, empty = (
            values.reshape(len(values), -1).T,
            marked.ravel() & (share.ravel() > 0),
            share.ravel() == 0,
        )
        inside.append(flat[marked])
        outside.append(flat[_some(np.flatnonzero(empty), CELLS, random)])
    outside += [
        values.reshape(len(values), -1).T[_some(np.arange(values[0].size), CELLS, random)]
        for values in clean[:SEEN_IMAGES]
    ]
    positive, negative = np.concatenate(inside), np.concatenate(outside)
    if not len(positive) or not len(negative):
        return None
    cells = np.concatenate([positive, negative])
    centre, scale = cells.mean(axis=0), cells.std(axis=0) + 1e-6
    model = LogisticRegression(C=0.1, max_iter=200, class_weight="balanced")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((cells - centre) / scale, np.arange(len(cells)) < len(positive))
    weights = np.asarray(model.coef_)[0] / scale
    return MarkDetector(weights, float(np.asarray(model.intercept_)[0] - weights @ centre), tuple(regions[:SHAPES]))


def detector_by_direction(marked: Sequence[Columns], clean: Sequence[Columns], *, seed: int = 0) -> MarkDetector | None:
    """The direction of a sparse linear support vector machine between marked and clean images' largest activations.

    Source: Pahde et al., Reveal to Revise, MICCAI 2023, without the propagation to the input.

    Returns:
        None where there are fewer than two images of either, or no feature tells them apart.
    """
    if min(len(marked), len(clean)) < 2:
        return None
    peaks = np.stack([values.reshape(len(values), -1).max(axis=1) for values in (*marked, *clean)])
    scale = peaks.std(axis=0) + 1e-6
    model = LinearSVC(
        penalty="l1", dual=cast(Any, False), C=0.1, class_weight="balanced", random_state=seed, max_iter=2000
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((peaks - peaks.mean(axis=0)) / scale, np.arange(len(peaks)) < len(marked))
    weights = np.asarray(model.coef_)[0] / scale
    if not weights.any():
        return None
    usual = np.concatenate([np.tensordot(weights, values, axes=1).ravel() for values in clean])
    return MarkDetector(weights, -float(np.quantile(usual, 0.99)))


def place_shape(logits: Float[np.ndarray, "h w"], shapes: Sequence[Region]) -> tuple[Region, float]:
    """The painted region, at the place where it fits best what a detector says, and how well it fits.

    Returns:
        The region at input size, and the soft intersection over union of the detector's probabilities with it, in [0, 1].
    """
    number, place, fit = _best_place(logits, shapes)
    return np.roll(shapes[number], place, (0, 1)), fit


def settle_shape(
    logits: Float[np.ndarray, "h w"],
    shapes: Sequence[Region],
    image: Image,
    examples: Sequence[Image],
) -> Region:
    """As `place_shape`, then moved by pixels to where the image has most of the painted example's: a detector of features is off by some.

    It stays where the squared difference nowhere falls to `CLEARER` of what it is there: a mark that looks different in every image.

    Args:
        logits: Of a detector.
        shapes: Painted regions.
        image: At input size.
        examples: The images in which the shapes were painted, in their order.
    """
    number, place, _ = _best_place(logits, shapes)
    shape, example = shapes[number], examples[number]
    (top, bottom), (left, right) = (
        (hit[0], hit[-1] + 1) for hit in (np.flatnonzero(shape.any(axis)) for axis in (1, 0))
    )
    inside, wanted = shape[top:bottom, left:right], example[:, top:bottom, left:right]
    moved = np.roll(shape, place, (0, 1))
    down, across = (int(np.flatnonzero(moved.any(axis))[0]) for axis in (1, 0))
    reach = [
        max(1, min(own // 2, int(SETTLED_SHARE * whole))) for own, whole in zip(inside.shape, shape.shape, strict=True)
    ]

    def difference(row: int, column: int) -> float:
        part = image[:, row : row + bottom - top, column : column + right - left]
        return float(np.square((part - wanted)[:, inside]).mean()) if part.shape == wanted.shape else np.inf

    places = [
        (row, column)
        for row in range(max(0, down - reach[0]), down + reach[0] + 1)
        for column in range(max(0, across - reach[1]), across + reach[1] + 1)
    ]
    best = min(places, key=lambda at: difference(*at))
    if difference(*best) > CLEARER * difference(down, across):
        return moved
    return np.roll(shape, (best[0] - top, best[1] - left), (0, 1))


def _best_place(logits: Float[np.ndarray, "h w"], shapes: Sequence[Region]) -> tuple[int, tuple[int, int], float]:
    """Which shape fits best, by how much it is moved down and right (around the edge), and how well it fits."""
    size = shapes[0].shape
    enlarged = F.interpolate(torch.from_numpy(logits).float()[None, None], size, mode="bilinear", align_corners=False)
    chances = enlarged[0, 0].sigmoid()
    chosen, at, fit, total = 0, (0, 0), -1.0, float(chances.sum())
    spectrum = torch.fft.rfft2(chances)
    for number, shape in enumerate(shapes):
        region = torch.from_numpy(shape)
        overlap = torch.fft.irfft2(torch.fft.rfft2(region.float()).conj() * spectrum, s=size)
        union = total + float(region.sum()) - overlap
        score = torch.where(_inside(region), overlap / union.clamp(min=1e-6), -1.0)
        place = int(score.argmax())
        if float(score.flatten()[place]) > fit:
            fit = float(score.flatten()[place])
            chosen, at = number, (place // size[1], place % size[1])
    return chosen, at, max(0.0, min(1.0, fit))


def hot_part(logits: Float[np.ndarray, "h w"], size: tuple[int, int]) -> Region:
    """Where a direction's relevance, blurred, is at least `KEPT_SHARE` of its largest; empty where none is positive."""
    enlarged = F.interpolate(
        torch.from_numpy(logits).float()[None, None], size, mode="bilinear", align_corners=False
    ).clamp(min=0)
    sigma = max(0.5, BLUR_SHARE * min(size))
    blurred = gaussian_blur(enlarged, sigma, 2 * int(2.5 * sigma + 0.5) + 1)[0, 0]
    return ((blurred > KEPT_SHARE * blurred.max()) & (blurred > 0)).numpy()


def area_share(region: Region, grid: tuple[int, ...]) -> Float[np.ndarray, "h w"]:
    """Share of every cell that a region covers."""
    return F.interpolate(torch.from_numpy(region).float()[None, None], tuple(grid), mode="area")[0, 0].numpy()


def _inside(region: torch.Tensor) -> torch.Tensor:
    from ...engine.interventions.equal_area import places_inside

    return places_inside(region)


def _some(places: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return places if len(places) <= most else random.choice(places, most, replace=False)
