"""What a look through a model finds: every feature map of one forward, in the order in which they are made.

Two modules make a `Survey`: `traced_survey` from a `torch.fx` graph, `hooked_survey` from hooks and the autograd graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

PASSES_ON = re.compile(r"pool|drop|identity|stochastic_depth|pad|contiguous", re.IGNORECASE)
"""Operations that make no feature of their own: a block does not end with one."""


@dataclass(frozen=True)
class FeatureMap:
    """One 4-D tensor of the forward.

    Attributes:
        names: Its names, see `BlockLayer.name`: of the innermost module that puts it out, then of those around it.
        channels: Number of maps.
        size: Height and width in cells.
        channel_axis: 1, or 3 where channels come last.
        crossed: Every path from image to logits crosses it.
        feature: It is a learned feature: behind at least one weight, before the classifier head, no pool or identity.
        depthwise: It comes from a convolution that filters each channel on its own.
    """

    names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    channel_axis: int
    crossed: bool
    feature: bool
    depthwise: bool


@dataclass(frozen=True)
class Survey:
    """All maps of a forward in execution order, and every name by which a user may call one of them."""

    maps: tuple[FeatureMap, ...]
    names: dict[str, FeatureMap] = field(default_factory=dict)


def has_weights(module: nn.Module) -> bool:
    """Whether the module mixes its inputs by a kernel or a matrix; per-channel scales (1-D) do not count."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def is_depthwise(module: nn.Module | None) -> bool:
    """Whether the module is a convolution with one group per channel."""
    groups = getattr(module, "groups", 1)
    return isinstance(groups, int) and groups > 1 and groups == getattr(module, "in_channels", None)


def is_compiled(module: nn.Module) -> bool:
    """Whether the module is TorchScript, which takes no hooks and shows no layers."""
    return isinstance(module, torch.jit.ScriptModule)


def map_shape(shape: torch.Size, channel_axis: int) -> tuple[int, tuple[int, int]] | None:
    """Channels and size of a 4-D tensor; None for anything that is not a map of more than one cell."""
    if len(shape) != 4 or channel_axis not in (1, 3):
        return None
    height, width = shape[2:] if channel_axis == 1 else shape[1:3]
    return (shape[channel_axis], (height, width)) if height * width > 1 else None


def enclosing(names: list[str]) -> tuple[str, ...]:
    """The modules that put out one tensor, the innermost first, each around the one before it.

    Of all calls that return it, only ancestors of the first count: an identity module that merely passes the tensor on
    does not name it.
    """
    return tuple(name for name in names if name == names[0] or _path(names[0]).startswith(f"{_path(name)}."))


def own_name(feature_map: FeatureMap, others: Iterable[FeatureMap]) -> str:
    """The outermost module that puts out this map and holds none of the others, so that the name says which block it is."""
    inside = [_path(other.names[0]) for other in others if other is not feature_map]
    alone = [name for name in feature_map.names if not any(path.startswith(f"{_path(name)}.") for path in inside)]
    return alone[-1] if alone else feature_map.names[0]


def _path(name: str) -> str:
    return name.partition(":")[0]


def call_names(calls: list[str]) -> list[str]:
    """A name for each module call: its path, or `path:2` for the second call of a module that runs several times."""
    counts: dict[str, int] = {}
    numbers = []
    for path in calls:
        counts[path] = counts.get(path, 0) + 1
        numbers.append(counts[path])
    return [path if counts[path] == 1 else f"{path}:{number}" for path, number in zip(calls, numbers, strict=True)]
