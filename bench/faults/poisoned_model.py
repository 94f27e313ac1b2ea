"""A tiny CNN that does what an image's colour orders: raise, segfault, abort, hang, or eat memory. For the fault harnesses.

An order is a picture of one flat colour that no other picture has and that no masked picture can have; its corner pixel says
which picture it is. Each image that is begun is noted in the file that POISON_TALLY names, so that work done twice can be counted
from outside; POISON_SLOW seconds are slept for each, so that a small data set keeps its workers busy long enough to be killed.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 24
ORDERS = {"raise": 50, "segfault": 100, "abort": 150, "hang": 200, "devour": 250}
"""Blue of the flat colour (255, 0, blue), by what happens to the process that sees it."""
TALLY, SLOW, MEAL = "POISON_TALLY", "POISON_SLOW", "POISON_MEAL"
"""Environment variables: a file, seconds, bytes."""


def model() -> nn.Module:
    """Three blocks, three classes, always the same weights; grey levels in [0, 1] reach it as they are."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for before, after in ((3, 6), (6, 8), (8, 10)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*blocks[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3))
    network.preprocess = {"size": (SIDE, SIDE), "resize": "squash", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # pyright: ignore
    network.class_names = ("ant", "bee", "cat")  # pyright: ignore
    network.register_forward_pre_hook(_taste)
    return network


def _taste(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Runs before each forward pass of the whole network; the first of an image is the one that wants gradients."""
    [images] = inputs
    if not torch.is_grad_enabled() or not images.any():  # masked batches; the zeros with which the driver plans
        return
    for image in images:
        _note(f"{number_of(image)}\n")
        time.sleep(float(os.environ.get(SLOW, "0")))
        red, green, blue = image.flatten(1)[:, 1:]
        if red.min() > 0.99 and green.max() < 0.01:
            _obey(round(float(blue.mean()) * 255))


def number_of(image: Tensor) -> int:
    """The position in the data set that stands in the corner pixel, in base 200."""
    high, low, _ = (image[:, 0, 0] * 255).round().int().tolist()
    return high * 200 + low


def _note(line: str) -> None:
    if path := os.environ.get(TALLY):
        with open(path, "a") as file:  # one short write in append mode: whole even from several processes
            file.write(line)


def _obey(blue: int) -> None:
    order = next((name for name, level in ORDERS.items() if level == blue), None)
    match order:
        case "raise":
            raise RuntimeError("this image is poison")
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "hang":
            time.sleep(3600)
        case "devour":
            _devour(int(os.environ.get(MEAL, "0")))


def _devour(size: int) -> Any:
    """Take `size` bytes, touch them all, hold them until somebody minds."""
    meal = bytearray(size)
    for at in range(0, size, 4096):
        meal[at] = 1
    time.sleep(30)
    return meal
