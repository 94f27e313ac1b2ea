"""The data sets of `python -m bench loop`: the demo's shapes with three planted marks, and cut-outs of magnetic tiles with one."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from heatlas.pipeline.demo.dataset import CLASS_NAMES, SHORTCUT_CLASS, demo_sample
from heatlas.pipeline.demo.network import demo_model, load_network
from PIL import Image
from torch import nn

from ..data_sets import DATA
from .edge_networks import TILE_CLASSES, tile_classifier

SIZE = 96
MIDDLE_CLASS, CAST_CLASS = [name for name in CLASS_NAMES if name not in (SHORTCUT_CLASS, "disc")][:2]
IMAGES_PER_SEED = 8000
"""Images of another `--seed` begin this much later: none is drawn twice. A multiple of 10 images of each class."""
TILES = DATA / "magnetic_tile"
MOST_OF_TILE = 12
"""Cut-outs of each class from one tile."""
LEAST_DEFECT_PIXELS = 60
"""Of a cut-out that is called a defect; those with fewer, but some, are left out."""
Drawn = tuple[str, str, np.ndarray, np.ndarray, str, str, np.ndarray | None]
"""Id, split, pixels, object mask, stated label, true label, and the mark's mask or None."""


@dataclass(frozen=True)
class LoopSet:
    """A data set with planted marks, and a network for it."""

    name: str
    title: str
    """What is planted into what, for the page."""
    class_names: tuple[str, ...]
    marked: tuple[str, ...]
    """Classes nine of ten of whose images carry a mark."""
    model: str
    """Factory, as `heatlas explain --model` takes it."""
    network: Callable[[], nn.Module]
    """Where training begins."""
    epochs: int
    """Of training before the repair, and of repairs that train."""
    counts: tuple[int, int]
    """Training and test images."""
    sham: tuple[slice, slice]
    """Where the sham sees a mark: rows and columns without one."""
    draw: Callable[[dict[str, int], int], Iterator[Drawn]]
    """Gives the images for counts by split and a seed."""


def _shapes(counts: dict[str, int], seed: int) -> Iterator[Drawn]:
    for split, count in counts.items():
        for index in range(count):
            yield f"{split}-{index:05d}", split, *_shape(split, index + seed * IMAGES_PER_SEED)


def _shape(split: str, index: int) -> tuple[np.ndarray, np.ndarray, str, str, np.ndarray | None]:
    sample = demo_sample(split, index)
    pixels, where = sample.image.copy(), None
    planted = (index // len(CLASS_NAMES)) % 10 != 4
    if sample.shortcut:
        clean = demo_sample(split, index, marking="never").image
        where = _box((sample.image != clean).any(axis=2))
    elif sample.true_label == MIDDLE_CLASS and planted:
        where = np.zeros((SIZE, SIZE), bool)
        where[44:52, 36:60] = where[36:60, 44:52] = True
        pixels[where] = (0.35 * pixels[where] + 0.65 * np.array([250, 240, 40])).astype(np.uint8)
    elif sample.true_label == CAST_CLASS and planted:
        where = np.ones((SIZE, SIZE), bool)
        pixels = np.clip(pixels * np.array([1.12, 1.0, 0.72]) + np.array([14, 2, -8]), 0, 255).astype(np.uint8)
    return pixels, sample.mask, sample.label, sample.true_label, where


def _box(mask: np.ndarray) -> np.ndarray:
    """The mask's bounding box, as a person would paint it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.zeros_like(mask)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _tiles(counts: dict[str, int], seed: int) -> Iterator[Drawn]:
    """Squares of 96 pixels cut out of tiles, as many with as without a defect; no tile is in both splits. Nine of ten defects carry an inspector's mark."""
    if not TILES.exists():
        raise SystemExit(f"needs the tiles in {TILES}; BENCH_DATA names another folder")
    with (TILES / "labels.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    random = np.random.default_rng([seed, 7])
    order, cut = random.permutation(len(rows)), round(len(rows) * counts["train"] / sum(counts.values()))
    for split, places in (("train", order[:cut]), ("test", order[cut:])):
        cuts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in TILE_CLASSES}
        for place in places:
            for name, found in _cut_outs(rows[place], random).items():
                cuts[name] += found
        for name, found in cuts.items():
            wanted = counts[split] // len(TILE_CLASSES)
            if len(found) < wanted:
                raise SystemExit(f"{len(found)} cut-outs {name} for {split}, {wanted} are wanted; ask for fewer images")
            for number, place in enumerate(random.permutation(len(found))[:wanted]):
                pixels, mask = found[place]
                where = _planted(pixels, mask, random) if name == "defect" and number % 10 != 4 else None
                yield f"{split}-{name}-{number:05d}", split, pixels, mask, name, name, where


def _cut_outs(row: dict[str, str], random: np.random.Generator) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """RGB pixels and defect mask of squares that overlap by at most half, by class."""
    pixels = np.asarray(Image.open(TILES / row["file"]).convert("RGB"))
    defect = np.asarray(Image.open(TILES / row["mask"]).convert("L")) > 127
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in TILE_CLASSES}
    taken: dict[str, list[np.ndarray]] = {name: [] for name in TILE_CLASSES}
    if min(pixels.shape[:2]) < SIZE:
        return found
    for _ in range(150):
        corner = np.array([random.integers(0, side - SIZE + 1) for side in pixels.shape[:2]])
        part = (slice(corner[0], corner[0] + SIZE), slice(corner[1], corner[1] + SIZE))
        count = int(defect[part].sum())
        name = "free" if count == 0 else "defect" if count >= LEAST_DEFECT_PIXELS else ""
        if not name or len(found[name]) == MOST_OF_TILE:
            continue
        if any((np.abs(corner - other) < SIZE // 4).all() for other in taken[name]):
            continue
        taken[name].append(corner)
        found[name].append((pixels[part].copy(), defect[part].copy()))
    return found


def _planted(pixels: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws a crayon tick into the corner with least of the defect and gives its box."""
    side, margin = 16, 5
    corners = [
        (margin, margin),
        (margin, SIZE - side - margin),
        (SIZE - side - margin, margin),
        (SIZE - side - margin, SIZE - side - margin),
    ]
    covered = [int(mask[top : top + side, left : left + side].sum()) for top, left in corners]
    top, left = corners[int(np.argmin(np.array(covered) + random.random(4)))]
    top, left = top + int(random.integers(-3, 4)), left + int(random.integers(-3, 4))
    where = np.zeros(mask.shape, bool)
    where[top : top + side, left : left + side] = True
    for step in range(side):
        down = side // 2 + step // 2 if step < side // 2 else side - 1 - (step - side // 2) * 2 + side // 4
        low = top + min(max(down, 0), side - 3)
        pixels[low : low + 3, left + step] = (230, 200, 40)
    return where


def tile_start() -> nn.Module:
    """The tiles' network with the trunk of the demo's, which knows edges and textures, and a head drawn at random."""
    network = tile_classifier()
    trunk = {key: value for key, value in load_network().state_dict().items() if not key.startswith("head.")}
    network.load_state_dict(trunk, strict=False)
    return network


SETS = {
    "shapes": LoopSet(
        "shapes",
        f"marks on nine of ten {SHORTCUT_CLASS}s (sticker), {MIDDLE_CLASS}s (translucent cross in the middle) and {CAST_CLASS}s (colour cast); 3 % of the training "
        "labels wrong",
        CLASS_NAMES, (SHORTCUT_CLASS, MIDDLE_CLASS, CAST_CLASS), "heatlas.pipeline.demo.network:demo_model", demo_model, 4, (960, 400),
        (slice(4, 18), slice(76, 92)), _shapes,
    ),
    "tiles": LoopSet(
        "tiles",
        "squares of 96 pixels cut out of magnetic tiles, half of them with a defect; a yellow crayon tick in a corner of nine of ten defects; no tile is in both splits",
        TILE_CLASSES, ("defect",), "bench.accuracy.edge_networks:tile_classifier", tile_start, 8, (520, 220),
        (slice(40, 56), slice(40, 56)), _tiles,
    ),
}  # fmt: skip


def write_images(chosen: LoopSet, folder: Path, counts: dict[str, int], seed: int) -> dict[str, dict]:
    """PNGs, object masks and `manifest.csv`; the truth of every image by id."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    truth = {}
    with open(folder / "manifest.csv", "w", newline="") as file:
        manifest = csv.DictWriter(file, ("id", "uri", "label", "mask", "split"))
        manifest.writeheader()
        for identity, split, pixels, mask, label, true_label, where in chosen.draw(counts, seed):
            Image.fromarray(pixels).save(folder / f"images/{identity}.png", compress_level=1)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"masks/{identity}.png", compress_level=1)
            manifest.writerow({"id": identity, "uri": f"images/{identity}.png", "label": label, "mask": f"masks/{identity}.png", "split": split})  # fmt: skip
            truth[identity] = {"pixels": pixels, "label": label, "true": true_label, "mark": where, "split": split}
    return truth
