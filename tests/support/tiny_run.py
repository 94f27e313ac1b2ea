"""A generated image folder and a tiny CNN, for tests of whole runs; `command` is what a user would type."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")
FACTORY = '''
import torch
from torch import nn


def model() -> nn.Module:
    """Three blocks, three classes, always the same weights: three times the usual ones, so that a mask changes the confidence."""
    torch.manual_seed(0)
    blocks = []
    for before, after in ((3, 6), (6, 8), (8, 10)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*blocks[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3))
    with torch.no_grad():
        for layer in net:
            if hasattr(layer, "weight"):
                layer.weight *= 3
    return net
'''
TAG = "HEATLAS_TEST_TAG"


def draw(path: pathlib.Path, number: int) -> None:
    """An image with a bright square; always the same for the same number."""
    pixels = np.random.default_rng(number).integers(0, 60, (30, 36, 3), dtype=np.uint8)
    pixels[6:18, 4 + number % 12 : 16 + number % 12, number % 3] = 220
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def draw_all(images: pathlib.Path, count: int) -> None:
    """Class folders with `count` images, `ant/000.png`, `bee/001.png` ..."""
    for number in range(count):
        draw(images / CLASSES[number % 3] / f"{number:03d}.png", number)


@contextlib.contextmanager
def importable_factory(folder: pathlib.Path, source: str = FACTORY) -> Iterator[pathlib.Path]:
    """`tiny_net:model` is this `source` meanwhile, here and in processes with `environment(folder)`, whatever an earlier test imported."""
    (folder / "tiny_net.py").write_text(source)
    sys.path.insert(0, str(folder))
    sys.modules.pop("tiny_net", None)
    importlib.invalidate_caches()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("tiny_net", None)


def command(images: object, out: object, *more: str) -> list[str]:
    """Arguments of `heatlas`: shards of 3 images of 24x24, in this process unless `more` says otherwise."""
    what = ["--model", "tiny_net:model", "--data", str(images), "--out", str(out)]
    how = ["--preprocess.size", "24", "--preprocess.resize", "squash", "--batch-size", "8"]
    how += [] if "--shard-size" in more else ["--shard-size", "3"]
    how += [] if "--workers" in more else ["--workers", "0"]
    return ["explain", *what, *how, *more]


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "heatlas", *arguments]


def environment(folder: pathlib.Path, **more: str) -> dict[str, str]:
    """For a process of its own, with a tag by which `tagged` finds it and whatever it starts."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    fixed = {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        TAG: uuid.uuid4().hex,
    }
    return {**os.environ, **fixed, **more}


def tagged(tag: str) -> dict[int, str]:
    """Living processes that were started with this tag in their environment, with their command lines. Linux only."""
    result = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{TAG}={tag}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                result[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    return result


def wait_until(condition: Callable[[], object], seconds: float = 120) -> object:
    """What `condition` returned last, as soon as it is true or time is up."""
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


def temporaries(out: pathlib.Path) -> list[str]:
    """Files of writers that did not finish."""
    return sorted(str(path.relative_to(out)) for path in out.rglob(".*") if path.is_file())
