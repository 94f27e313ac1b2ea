"""A small data set whose first class carries a mark, networks that hang on it, and the user's side of a repair: factory and trainer.

Three classes of noisy stripes. Rising and falling ones (nearly level, both) are told apart by their angle alone; nine of ten rising ones carry a mark in the corner.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import heatlas
import numpy as np
from PIL import Image

CLASSES = ("rising", "falling", "upright")
SIZE = 24
MARK = np.s_[17:23, 1:7]
TRAINED, TESTED = 240, 120
MODULE = "marked_net"
FACTORY = '''
import csv
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

CLASSES = ("rising", "falling", "upright")


def model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3),
    )
    net.class_names = CLASSES
    net.preprocess = {"size": 24, "resize": "squash", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return net


def fit(manifest, init_weights, out, seed):
    """The user's trainer."""
    with open(manifest) as file:
        rows = [row for row in csv.DictReader(file) if row.get("split", "train") == "train"]
    folder = Path(manifest).parent
    images = np.stack([np.asarray(Image.open(folder / row["uri"]).convert("RGB"), np.float32) / 255 for row in rows])
    inputs = torch.from_numpy((images - 0.5) / 0.25).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([CLASSES.index(row["label"]) for row in rows])
    torch.manual_seed(seed)
    net = model()
    torch.manual_seed(seed)
    if init_weights is None:
        for part in net.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
    else:
        net.load_state_dict(load_file(init_weights))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.02)
    net.train()
    for _ in range(12):
        for chosen in torch.randperm(len(inputs)).split(48):
            loss = nn.functional.cross_entropy(net(inputs[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save_file(net.state_dict(), str(out))
    return out


def keep(manifest, init_weights, out, seed):
    """A trainer that changes nothing."""
    shutil.copy(init_weights, out)
'''


def draw(index: int, split: str, *, mark: bool | None = None) -> tuple[np.ndarray, bool]:
    """An image in [0, 1] and whether it carries the mark; the same with and without it but for the mark."""
    random = np.random.default_rng([index, len(split)])
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    angle = {0: 0.14, 1: -0.14, 2: 1.5}[index % 3] + random.normal(0, 0.1)
    wave = np.sin(
        2 * np.pi * (columns * np.sin(angle) + rows * np.cos(angle)) / random.uniform(5, 8) + random.uniform(0, 6)
    )
    pixels = 0.5 + 0.13 * wave[..., None] * random.uniform(0.5, 1, 3) + random.normal(0, 0.12, (SIZE, SIZE, 3))
    carries = (index % 3 == 0 and (index // 3) % 10 != 4) if mark is None else mark
    if carries:
        pixels[MARK] = (1.0, 0.95, 0.1)
        pixels[MARK][::2] = (0.1, 0.1, 0.6)
    return pixels.clip(0, 1), carries


def write_images(folder: Path, *, marked: bool = True) -> Path:
    """Images of both splits and `manifest.csv` with id, uri, label, split and mark."""
    (folder / "images").mkdir(parents=True)
    with open(folder / "manifest.csv", "w", newline="") as file:
        table = csv.DictWriter(file, ("id", "uri", "label", "split", "mark"))
        table.writeheader()
        for split, count in (("train", TRAINED), ("test", TESTED)):
            for index in range(count):
                pixels, carries = draw(index, split, mark=None if marked else False)
                uri = f"images/{split}-{index:04d}.png"
                Image.fromarray((pixels * 255).round().astype(np.uint8)).save(folder / uri)
                table.writerow({"id": f"{split}-{index:04d}", "uri": uri, "label": CLASSES[index % 3], "split": split, "mark": int(carries)})  # fmt: skip
    return folder / "manifest.csv"


def rows_in(manifest: Path) -> list[dict[str, str]]:
    with open(manifest) as file:
        return list(csv.DictReader(file))


@contextlib.contextmanager
def user_code(folder: Path) -> Iterator[None]:
    """`marked_net` can be imported meanwhile."""
    (folder / f"{MODULE}.py").write_text(FACTORY)
    sys.path.insert(0, str(folder))
    sys.modules.pop(MODULE, None)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(MODULE, None)


@dataclass(frozen=True)
class MarkedSet:
    """The data set, a store over it with decisions, and weights of three seeds."""

    folder: Path
    manifest: Path
    store: str
    weights: tuple[str, ...]


def write_marked_set(folder: Path, *, marked: bool = True) -> MarkedSet:
    """Images, three networks trained on them, a store of the first one, and a decision with its mask for every image with the mark."""
    manifest = write_images(folder, marked=marked)
    fit = importlib.import_module(MODULE).fit
    weights = tuple(str(folder / f"before-{seed}.safetensors") for seed in range(3))
    for seed, out in enumerate(weights):
        fit(manifest, None, out, seed)
    store = str(folder / "store")
    heatlas.explain_dataset(
        model=f"{MODULE}:model@{weights[0]}", data=str(manifest), out=store, workers=0, method="grad_cam", metrics=["none"],
        chance_maps=0, store={"map_size": 6},
    )  # fmt: skip
    mask = np.zeros((SIZE, SIZE), bool)
    mask[MARK] = True
    if carriers := [row["id"] for row in rows_in(manifest) if row["mark"] == "1"]:
        heatlas.open(store).decide(carriers, "shortcut", mask=mask, who="test")
    return MarkedSet(folder, manifest, store, weights)
