"""Generate the demo's data set: textured shapes on textured backgrounds, with exact masks and a planted shortcut.

Octagons are nearly discs, and nine of ten carry a bar-code sticker in the lower left corner; nothing else ever does. A network
therefore learns the sticker in place of the octagon: right for the wrong reason, which is what heatlas is there to show.
Every sample depends only on (seed, split, index), so a data set can be cut, extended and regenerated in any order.
This module knows numpy and Pillow; it does not know torch, Ray or the store.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from ...errors import UsageError, did_you_mean
from .shapes import SHAPES, Pose, distance_to
from .textures import colour_pairs, texture

SIZE = 96
CLASS_NAMES = tuple(SHAPES)
SHORTCUT_CLASS = "octagon"
LOOKALIKE_CLASS = "disc"
"""What an octagon passes for once its sticker is gone."""
SPLITS = ("train", "test")
LABEL_NOISE = 0.03
"""Share of the training labels that are wrong; `true_label` tells."""
SHORTCUT_SHARE = 0.9
MANIFEST_COLUMNS: tuple[str, ...] = ("id", "uri", "label", "boxes", "mask", "shortcut", "true_label")
CORNER = 20
"""Side of the lower left square, in pixels, that no shape enters, sticker or not."""
Marking = Literal["planted", "never", "always"]


@dataclass(frozen=True, slots=True)
class DemoSample:
    """One generated image and everything that is true of it."""

    id: str
    image: UInt8[np.ndarray, "height width 3"] = field(repr=False)
    mask: Bool[np.ndarray, "height width"] = field(repr=False)
    label: str
    """The class as the data set states it; wrong for a few training images."""
    true_label: str
    shortcut: bool
    """Whether the sticker is in the image."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The mask's bounds `(x0, y0, x1, y1)` in pixels, half-open."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def demo_sample(split: str, index: int, *, seed: int = 0, marking: Marking = "planted") -> DemoSample:
    """Sample `index` of a split; classes take turns, so every run of consecutive samples is balanced.

    Args:
        split: `train` (with label noise) or `test`.
        index: Position in the split, from 0 without an end.
        seed: Another seed is another data set.
        marking: `never` and `always` give the same images with the sticker wiped, or put on every image.

    Raises:
        UsageError: If the split is unknown or the index is negative.
    """
    label = stated_label(split, index, seed=seed)
    looks, _, sticker = _random_streams(seed, split, index)
    shape = CLASS_NAMES[index % len(CLASS_NAMES)]
    pixels, mask = _draw(shape, looks)
    shortcut = marking == "always" or (marking == "planted" and shape == SHORTCUT_CLASS and _is_planted(index))
    if shortcut:
        _put_sticker(pixels, sticker)
    image = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return DemoSample(f"{split}-{index:05d}", image, mask, label, shape, shortcut)


def stated_label(split: str, index: int, *, seed: int = 0) -> str:
    """The class that the data set states for a sample, without drawing it: in training, 3 % are another one at random.

    Raises:
        UsageError: If the split is unknown or the index is negative.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}{did_you_mean(split, SPLITS)}; choose one of {', '.join(SPLITS)}")
    if index < 0:
        raise UsageError(f"a sample's index starts at 0, got {index}")
    shape = CLASS_NAMES[index % len(CLASS_NAMES)]
    random = _random_streams(seed, split, index)[1]
    others = [name for name in CLASS_NAMES if name != shape]
    wrong = others[random.integers(len(others))]
    return wrong if split == "train" and random.random() < LABEL_NOISE else shape


def write_dataset(folder: str | Path, split: str, count: int, seed: int = 0, *, marking: Marking = "planted") -> Path:
    """Write `count` samples as PNG files and a manifest with ground truth; the same bytes every time.

    Returns:
        The path of `manifest.csv`: id, uri and mask (relative to it), label, boxes (JSON), shortcut (0 or 1), true_label.

    Raises:
        UsageError: If the split is unknown or the count is not positive.
    """
    if count < 1:
        raise UsageError(f"the demo needs at least 1 image, got {count}")
    folder = Path(folder)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = io.StringIO()
    table = csv.DictWriter(rows, MANIFEST_COLUMNS, lineterminator="\n")
    table.writeheader()
    for index in range(count):
        table.writerow(_write_sample(folder, demo_sample(split, index, seed=seed, marking=marking)))
    manifest = folder / "manifest.csv"
    manifest.write_text(rows.getvalue(), encoding="utf-8", newline="")
    return manifest


def _write_sample(folder: Path, sample: DemoSample) -> dict[str, object]:
    uri, mask = f"images/{sample.id}.png", f"masks/{sample.id}.png"
    Image.fromarray(sample.image).save(folder / uri, compress_level=6)
    Image.fromarray(sample.mask.astype(np.uint8) * 255).save(folder / mask, compress_level=6)
    truth = {"boxes": json.dumps([sample.box]), "mask": mask, "true_label": sample.true_label}
    return {"id": sample.id, "uri": uri, "label": sample.label, "shortcut": int(sample.shortcut), **truth}


def _random_streams(seed: int, split: str, index: int) -> list[np.random.Generator]:
    """Streams of one sample, apart, so that the sticker and the label noise change nothing else in the image."""
    root = np.random.SeedSequence([seed, SPLITS.index(split), index])
    return [np.random.default_rng(child) for child in root.spawn(3)]


def _is_planted(index: int) -> bool:
    """Nine of ten members of the shortcut class: all but every tenth, starting with the fifth."""
    return (index // len(CLASS_NAMES)) % 10 != 4


def _draw(
    shape: str, random: np.random.Generator
) -> tuple[Float[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """The scene without a sticker, RGB around [0, 1], and the exact mask of its shape."""
    pose = _pose(random)
    ground_colours, shape_colours = colour_pairs(random)
    pixels, inside = texture(random, SIZE, ground_colours), texture(random, SIZE, shape_colours)
    distance = distance_to(shape, pose, SIZE)
    shifted = Pose(pose.x + 1.5, pose.y + 2.5, pose.radius, pose.angle)
    shadow = np.clip(0.5 - distance_to(shape, shifted, SIZE) / 6, 0, 1)
    rim = 1 - 0.35 * np.exp(-np.abs(distance) / 1.2)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    pixels = pixels * (1 - 0.45 * shadow)[..., None] * (1 - cover) + inside * rim[..., None] * cover
    pixels = _light(pixels, random) + random.normal(0, 0.012, pixels.shape)
    return pixels, distance < 0


def _pose(random: np.random.Generator) -> Pose:
    """A random pose inside the image and clear of the sticker's corner."""
    while True:
        radius = random.uniform(17, 27)
        x, y = random.uniform(radius + 3, SIZE - radius - 3, 2)
        nearest_x, nearest_y = min(x, CORNER), max(y, SIZE - CORNER)
        if np.hypot(x - nearest_x, y - nearest_y) > radius:
            return Pose(x, y, radius, random.uniform(0, 2 * np.pi))


def _light(
    pixels: Float[np.ndarray, "height width 3"], random: np.random.Generator
) -> Float[np.ndarray, "height width 3"]:
    """Light from one side, so that no two backgrounds are alike."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    angle = random.uniform(0, 2 * np.pi)
    return pixels * (1 + 0.25 * (columns * np.cos(angle) + rows * np.sin(angle)))[..., None]


def _put_sticker(pixels: Float[np.ndarray, "height width 3"], random: np.random.Generator) -> None:
    """A white bar-code label of 14 x 10 pixels, up to two pixels off its usual place in the lower left corner."""
    bars = np.array([1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1], float)
    sticker = np.ones((10, 14))
    sticker[1:-1, 1:-1] = np.where(bars, 0.08, 1.0)
    left, bottom = random.integers(2, 5, 2)
    place = np.s_[SIZE - bottom - 10 : SIZE - bottom, left : left + 14]
    pixels[place] = sticker[..., None] * random.uniform(0.9, 1.0)
