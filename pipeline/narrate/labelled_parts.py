"""Parts of objects that somebody labelled, such as beak and wing, and how much of a map lies on each."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ...errors import UsageError
from ..storage.location import bytes_of, locate

LARGEST_BYTES = 64_000_000
POINT_SIDE = 0.2
"""Of the square around a part of which only its middle is known, in shares of the image."""
Box = tuple[float, float, float, float]
PartBoxes = Mapping[str, Mapping[str, Box]]
"""By image id and name of the part: x0, y0, x1, y1 in shares of the image as the network sees it."""


def read_parts(uri: str) -> PartBoxes:
    """Read `{"a.jpg": {"beak": [x, y], "wing": [x0, y0, x1, y1]}}`.

    Raises:
        UsageError: If it cannot be read, or a part is no point and no box within the image.
    """
    try:
        fs, path = locate(os.path.expanduser(uri))
        if (size := fs.size(path) or 0) > LARGEST_BYTES:
            raise UsageError(f"--parts {uri} has {size:,} bytes; at most {LARGEST_BYTES:,} are read")
        content = json.loads(bytes_of(fs, path))
    except OSError as error:
        raise UsageError(f"cannot read --parts {uri}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--parts {uri} is no JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(parts, dict) for parts in content.values()):
        raise UsageError(
            f"--parts {uri} must be an object of images, each an object of its parts: {{ID: {{NAME: [x, y]}}}}"
        )
    return {
        identity: {name: _box(place, f"{name!r} of {identity!r}") for name, place in parts.items()}
        for identity, parts in content.items()
    }


def part_shares(map_: Float[np.ndarray, "height width"], parts: Mapping[str, Box]) -> dict[str, float]:
    """Share of the map's mass in the box of each part, in [0, 1]; pixels on its edge count by the share that lies within."""
    total = float(map_.sum(dtype=np.float64))
    if total <= 0:
        return {}
    height, width = map_.shape
    return {
        name: float(_covered(y0, y1, height) @ map_.astype(np.float64) @ _covered(x0, x1, width)) / total
        for name, (x0, y0, x1, y1) in parts.items()
    }


def _covered(start: float, stop: float, size: int) -> Float[np.ndarray, " pixel"]:
    """The share of each pixel of a line that lies between two places in [0, 1]."""
    pixels = np.arange(size)
    return (np.minimum(stop * size, pixels + 1) - np.maximum(start * size, pixels)).clip(0, 1)


def _box(place: Any, what: str) -> Box:
    numbers = place if isinstance(place, list) else []
    if not all(
        isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1 for number in numbers
    ):
        numbers = []
    if len(numbers) == 2:
        x, y = numbers
        half = POINT_SIDE / 2
        return max(0.0, x - half), max(0.0, y - half), min(1.0, x + half), min(1.0, y + half)
    if len(numbers) == 4 and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
        return numbers[0], numbers[1], numbers[2], numbers[3]
    shown = place if not isinstance(place, float) or math.isfinite(place) else str(place)
    raise UsageError(
        f"--parts: {what} must be [x, y] or [x0, y0, x1, y1] with x0 < x1 and y0 < y1, all in [0, 1] of the image as the network sees it, got {shown!r}"
    )
