"""Textures and colours of the demo: a pattern in [0, 1] that mixes two colours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Pattern = Float[np.ndarray, "size size"]
Colour = Float[np.ndarray, "3"]
Image = Float[np.ndarray, "size size 3"]


def texture(random: np.random.Generator, size: int, colours: tuple[Colour, Colour]) -> Image:
    """A randomly chosen pattern between two RGB colours in [0, 1]."""
    kinds = list(PATTERNS)
    pattern = PATTERNS[kinds[random.integers(len(kinds))]](random, size)[..., None]
    return colours[0] * (1 - pattern) + colours[1] * pattern


def colour_pairs(random: np.random.Generator) -> tuple[tuple[Colour, Colour], tuple[Colour, Colour]]:
    """Two colours for the background (muted) and two for the shape (vivid), the pairs apart in hue and in lightness."""
    hue = random.random()
    dark_ground = random.random() < 0.5
    lightness = (random.uniform(0.22, 0.42), random.uniform(0.80, 0.98))
    ground_light, shape_light = lightness if dark_ground else lightness[::-1]
    ground = [_hsv(hue + h, random.uniform(0.12, 0.42), ground_light + v) for h, v in ((0.0, -0.06), (0.04, 0.10))]
    other = hue + random.uniform(0.25, 0.75)
    shape = [_hsv(other + h, random.uniform(0.55, 0.9), shape_light + v) for h, v in ((0.0, 0.0), (0.07, -0.16))]
    return (ground[0], ground[1]), (shape[0], shape[1])


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB of hue (in turns), saturation and value, clipped to [0, 1]."""
    offsets = (np.array([5.0, 3.0, 1.0]) + 6 * hue) % 6
    ramp = np.clip(np.minimum(offsets, 4 - offsets), 0, 1)
    return np.clip(value * (1 - saturation * ramp), 0, 1)


def _wave(random: np.random.Generator, size: int, lowest: float, highest: float) -> Pattern:
    """A plane wave in [-1, 1] with a period between `lowest` and `highest` pixels, in any direction."""
    rows, columns = np.mgrid[0:size, 0:size]
    angle, phase = random.uniform(0, np.pi), random.uniform(0, 2 * np.pi)
    travelled = columns * np.cos(angle) + rows * np.sin(angle)
    return np.sin(2 * np.pi * travelled / random.uniform(lowest, highest) + phase)


def _stripes(random: np.random.Generator, size: int) -> Pattern:
    return np.clip(0.5 + 1.6 * _wave(random, size, 7.0, 14.0), 0, 1)


def _checks(random: np.random.Generator, size: int) -> Pattern:
    angle, cell = random.uniform(0, np.pi / 2), random.uniform(9, 16)
    rows, columns = np.mgrid[0:size, 0:size] * (2 * np.pi / cell)
    u, v = columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)
    return np.clip(0.5 + 3 * np.sin(u) * np.sin(v), 0, 1)


def _dots(random: np.random.Generator, size: int) -> Pattern:
    angle, cell = random.uniform(0, np.pi / 2), random.uniform(8, 13)
    rows, columns = np.mgrid[0:size, 0:size] * (2 * np.pi / cell)
    u, v = columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)
    return np.clip(1.6 * (np.cos(u) + np.cos(v)) - 0.6, 0, 1)


def _clouds(random: np.random.Generator, size: int) -> Pattern:
    """Value noise: random grids, each twice as fine and half as strong, smoothly interpolated."""
    field, strength = np.zeros((size, size)), 1.0
    for cells in (3, 6, 12, 24):
        field += strength * _interpolate(random.random((cells + 1, cells + 1)), size)
        strength /= 2
    return (field - field.min()) / (field.max() - field.min())


def _interpolate(grid: Float[np.ndarray, "rows columns"], size: int) -> Pattern:
    position = (np.arange(size) + 0.5) / size * (len(grid) - 1)
    cell = position.astype(int)
    part = position - cell
    part = part * part * (3 - 2 * part)
    rows = grid[cell] * (1 - part)[:, None] + grid[cell + 1] * part[:, None]
    return rows[:, cell] * (1 - part) + rows[:, cell + 1] * part


def _gradient(random: np.random.Generator, size: int) -> Pattern:
    return 0.5 + 0.5 * _wave(random, size, 1.6 * size, 2.6 * size)


PATTERNS: dict[str, Callable[[np.random.Generator, int], Pattern]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "clouds": _clouds,
    "gradient": _gradient,
}
