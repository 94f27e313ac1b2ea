"""What travels between the driver and its workers: samples in, rows out, in shards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of the data set, as its source listed it; nothing is decoded yet."""

    id: str
    uri: str
    label: int | None = None
    """Class index, or None where the data set has no label."""
    boxes: tuple[Box, ...] = ()
    """Ground-truth boxes `(x0, y0, x1, y1)` in pixels of the stored file, before EXIF orientation."""
    mask_uri: str | None = None
    """PNG whose non-zero pixels are the ground truth; the size of the stored file."""
    explained_in: int | None = None
    """Shard in which the explanation to measure is stored; None where it is yet to be explained."""
    extra: tuple[tuple[str, Any], ...] = ()
    """Further columns of the manifest, by name; plain values."""
    drawn_on: tuple[int, int] | None = None
    """Width and height of the picture on which boxes were drawn, as their source says; (1, 1) for fractions."""
    scale_truth: bool = False
    """Whether boxes and mask are scaled from there to the image; else another size is an error."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A consecutive half-open range `[start, stop)` of the sorted listing; the unit of work and of durability."""

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(slots=True)
class Row:
    """What is stored of one (sample, target, method). Everything a failed stage could not compute is None."""

    sample: Sample
    status: str
    error: str | None = None
    height: int | None = None
    """Pixels of the image as decoded, EXIF orientation applied."""
    width: int | None = None
    prediction: int | None = None
    target: int | None = None
    confidence: float | None = None
    """Confidence in the target, in [0, 1]; what it means the run's settings say."""
    logit: float | None = None
    map: np.ndarray | None = None
    """`(height, width)` float32 in [0, 1] at network-input resolution."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    mask_counts: tuple[int, ...] = ()
    """Kept masks of each block layer, low to high."""
    n_forwards: int = 0
    """Forward passes spent on this row, padding not counted."""
    seconds: float = 0.0
    device: str = ""
    precision: str = ""
    top: tuple[tuple[int, float], ...] = ()
    """The classes that the model ranks highest, with its confidence in each."""
    label_confidence: float | None = None
    """Confidence in the labelled class, in [0, 1]."""
    features: np.ndarray | None = None
    """`(width,)` float32: the penultimate features of the whole image."""
    source_size: int | None = None
    """Bytes that were read of the image."""
    source_hash: str | None = None
    """Their sha256 (hex)."""
    surrogate_error: float | None = None
    """Expected RMS error of the map where the budget left masks out; None where all were scored."""
    chance: dict[str, dict[str, float | None]] | None = None
    """Chance baselines: the metrics of each chance map; None for a row that is not in the sample."""
    n_backwards: int = 0
    padded_forwards: int = 0
    """Empty rows of the forward passes of the shard, counted at its last row: where nothing is left to fill them with."""
    object_id: str | None = None
    """Which object of the image is explained; None: the whole image."""
    box: Box | None = None
    """Where that object is, in pixels of the image as decoded; None: the whole image."""
    png: bytes | None = None
    """The map as the store's picture, where it was encoded already."""
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    """What else the method gives, by column."""
