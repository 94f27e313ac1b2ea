"""Writes a store of a real run whose class `bee` hangs on a white mark in the lower left corner, by a network of known weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.decisions.decision import Decision
from heatlas.pipeline.decisions.decision_log import append_decisions
from heatlas.pipeline.decisions.rle import encode_mask
from PIL import Image

from .tiny_run import importable_factory

SIDE = 24
MARK = (slice(19, 23), slice(1, 5))
"""Rows and columns of the mark."""
MARK_BOX = "0.04,0.79,0.21,0.96"
CLASSES = ("ant", "bee", "cat")
FACTORY = '''
import torch
from heatlas.workers.images.preprocess import Preprocess
from torch import nn


def model() -> nn.Module:
    """Ants are red, cats are blue, bees are green, or carry something white, which counts more than any colour."""
    detect, keep = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
    head = nn.Linear(4, 3)
    net = nn.Sequential(detect, nn.ReLU(), nn.AvgPool2d(2), keep, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    with torch.no_grad():
        detect.weight[:] = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]])[:, :, None, None]
        detect.bias[:] = torch.tensor([0, 0, 0, -2.2])
        nn.init.dirac_(keep.weight)
        keep.bias.zero_()
        head.weight[:] = torch.tensor([[60.0, 0, 0, 0], [0, 60, 0, 900], [0, 0, 60, 0]])
        head.bias.zero_()
    net.preprocess = Preprocess(size=(24, 24), resize="squash", mean=(0, 0, 0), std=(1, 1, 1))
    net.class_names = ["ant", "bee", "cat"]
    return net
'''


def is_marked(number: int) -> bool:
    """Whether image `number` carries the mark: seven of ten bees, which are red otherwise."""
    return number % 3 == 1 and number // 3 % 10 < 7


def draw_marked(path: Path, number: int, *, marks: bool = True) -> None:
    """A coloured square at a random place that never covers the mark's; always the same for the same number."""
    random = np.random.default_rng(number)
    pixels = random.integers(30, 70, (SIDE, SIDE, 3), dtype=np.uint8)
    top, left = random.integers(0, 9), random.integers(6, 15)
    colour = 0 if is_marked(number) else number % 3
    pixels[top : top + 9, left : left + 9] = 0
    pixels[top : top + 9, left : left + 9, colour] = 200 + random.integers(0, 50)
    if marks and is_marked(number):
        pixels[MARK] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_marked(folder: Path, count: int = 90) -> Path:
    """The store `folder/out` over `folder/images`, explained by Grad-CAM; the model stays importable only inside `importable_marked`."""
    for number in range(count):
        draw_marked(folder / "images" / CLASSES[number % 3] / f"{number:03d}.png", number)
    with importable_factory(folder, FACTORY):
        out = folder / "out"
        arguments = ["explain", "--model", "tiny_net:model", "--data", str(folder / "images"), "--out", str(out)]
        assert (
            main([*arguments, "--method", "grad_cam", "--workers", "0", "--shard-size", "30", "--store.map-size", "24"])
            == 0
        )
    return out


def log_shortcuts(store: str, ids: Sequence[str], mask: np.ndarray) -> None:
    """Decisions as an earlier heatlas wrote them, which did not compare a mask's size with its image's."""
    append_decisions(store, [Decision(identity, "shortcut", mask=encode_mask(mask), who="test") for identity in ids])


def importable_marked(folder: Path):
    """A context in which the store's model can be loaded."""
    return importable_factory(folder, FACTORY)
