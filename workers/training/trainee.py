"""What a rank trains: a network with its loss, whatever kind of explainer it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Trainee:
    """A network to train over a frozen classifier."""

    network: nn.Module
    """Whose state the explainer's file holds."""
    step: nn.Module
    """`(images, targets, teacher)` to the loss and its terms; the network is part of it."""
    model: nn.Module
    """The classifier."""
    layers: tuple[str, ...]
    """That are read."""
    optimiser: Callable[[int], tuple[torch.optim.Optimizer, Any]]
    """Optimiser and schedule of a training of so many steps."""
    student: Callable[[Tensor, Tensor], Tensor] | None = None
    """`(images, targets)` to maps in [0, 1], where a teacher can be imitated."""
    begin: Callable[[Tensor], None] | None = None
    """Told the first images before the first step."""
    closing: Callable[[Iterable[Tensor], Iterable[Tensor]], Mapping[str, Any]] | None = None
    """`(training images, held-out images)`, batch by batch, to what the file says of the trained network."""
