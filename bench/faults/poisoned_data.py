"""Data sets for the fault harnesses: noise with a bright square per class, and images that order the model to misbehave."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .poisoned_model import ORDERS, SIDE

EXPECTED = {"raise": "explain_error", "segfault": "quarantined", "abort": "quarantined", "hang": "quarantined", "devour": "quarantined"}  # fmt: skip
"""The status of the row that each kind of poison must end with."""


def write_images(folder: Path, count: int, poison: Mapping[str, int], seed: int = 0) -> None:
    """Write `count` images, those at `poison`'s positions being orders, and two manifests.

    `all.csv` lists everything; `calm.csv` leaves the poison out, so that an undisturbed run over it needs no quarantine. Ids
    sort like positions.
    """
    noise = np.random.default_rng(seed)
    kind_at = {position: kind for kind, position in poison.items()}
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        pixels = noise.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        label = number % 3
        left, top = noise.integers(2, SIDE - 12, 2)
        pixels[top : top + 10, left : left + 10, label] = 220
        if number in kind_at:
            pixels[:] = (255, 0, ORDERS[kind_at[number]])
        pixels[0, 0] = (number // 200, number % 200, 0)
        name = f"{number:05d}.png"
        Image.fromarray(pixels).save(folder / name)
        lines.append((name, str(folder / name), label))
    write_manifest(folder / "all.csv", lines)
    write_manifest(folder / "calm.csv", [line for number, line in enumerate(lines) if number not in kind_at])


def write_manifest(path: Path, lines: Sequence[tuple[str, str, int]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "uri", "label"), *lines])


def expected_statuses(count: int, poison: Mapping[str, int]) -> dict[str, str]:
    """Status by id."""
    kinds = {position: EXPECTED[kind] for kind, position in poison.items()}
    return {f"{number:05d}.png": kinds.get(number, "ok") for number in range(count)}
