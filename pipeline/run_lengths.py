"""Run lengths of a mask, as COCO has them: down the columns, empty pixels first. They are checked before they become pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool


def read_runs(counts: Any, height: int, width: int) -> list[int]:
    """Run lengths that fill a mask exactly.

    Args:
        counts: A list of whole numbers, or COCO's compressed text.
        height: Of the mask, in pixels.
        width: Of the mask, in pixels.

    Raises:
        ValueError: For anything else.
    """
    text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
    runs = decompressed(text) if isinstance(text, str) else _whole_numbers(text)
    if min(runs, default=0) < 0:
        raise ValueError(f"its run lengths must be at least 0, one is {min(runs):,}")
    if sum(runs) != height * width:
        raise ValueError(f"its run lengths add up to {sum(runs):,} pixels, not to {height * width:,}")
    return runs


def mask_of_runs(runs: Sequence[int], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The mask that run lengths of `read_runs` stand for."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def decompressed(text: str) -> list[int]:
    """Run lengths from COCO's text: five bits a character, the sixth says that more follow; from the third length on, the difference
    to the length before the last. pycocotools does not check that they fit the mask.

    Raises:
        ValueError: For a character outside of the code, or a text that ends amid a number.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{character!r} is not part of COCO's compressed run lengths")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("the compressed run lengths are cut short: they end amid a number")
    return runs


def _whole_numbers(counts: Any) -> list[int]:
    whole = isinstance(counts, Sequence) and all(
        type(count) is int or (type(count) is float and count.is_integer()) for count in counts
    )
    if not whole:
        raise ValueError("the counts of a mask are whole numbers, or COCO's compressed text")
    return [int(count) for count in counts]
