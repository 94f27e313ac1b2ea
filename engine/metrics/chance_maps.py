"""What chance and habit get: maps that know nothing of the model, measured beside the explanation of the same image.

A score means little alone: on large objects a random map has a high EBPG, and objects tend to be in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from ..chance_map_names import CHANCE_MAP_NAMES
from ..random import sample_generator
from .protocol import Metric

SIGMA = 0.25
"""Of the Gaussian, as a share of each side."""


def random_map(size: tuple[int, int], *, seed: int, sample: int) -> Float[Tensor, "height width"]:
    """Every pixel uniform in [0, 1), drawn for this image alone; float32 on the CPU.

    Args:
        size: Height and width in pixels.
        seed: Of the run, at least 0.
        sample: Stands for the image, at least 0: a digest of its id.
    """
    return torch.rand(size, generator=sample_generator(seed, sample, "floor"))


def gaussian_map(size: tuple[int, int], *, seed: int = 0, sample: int = 0) -> Float[Tensor, "height width"]:
    """exp(-(u^2 + v^2) / 2), u and v the distance from the middle over a quarter of the height and width: the same for every image.

    Args:
        size: Height and width in pixels.
        seed: Not used; there is nothing random here.
        sample: Not used.
    """
    down, across = (((torch.arange(side) + 0.5) / side - 0.5) / SIGMA for side in size)
    return torch.exp(-(down[:, None] ** 2 + across[None, :] ** 2) / 2)


CHANCE_MAPS: dict[str, Callable[..., Float[Tensor, "height width"]]] = dict(
    zip(CHANCE_MAP_NAMES, (random_map, gaussian_map), strict=True)
)
"""The chance maps by name: `(size, seed=, sample=)` -> map in [0, 1]."""


def chance_metrics(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """The metrics that a map without a method can have: not those that ask the method for further maps or for its block maps."""
    return tuple(metric for metric in metrics if not metric.explains and not metric.layers)
