"""A small classifier whose input and output may be changed, and what heatlas makes of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.behaviour import adapt_classifier
from torch import Tensor, nn

SIZE = Preprocess((16, 16), "squash")


class Net(nn.Module):
    """Two convolutions and a head; `end` makes of its logits what the model returns, `start` of its input what it sees."""

    def __init__(
        self,
        end: Callable[[Tensor], Tensor] = lambda x: x,
        classes: int = 4,
        start: Callable[[Tensor], Tensor] = lambda x: x,
    ):
        super().__init__()
        torch.manual_seed(1)
        self.low, self.high = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.head = nn.Linear(8, classes)
        self.end, self.start = end, start

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.high(self.low(x).relu()).relu().mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.logits(self.start(x)))


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(7))


def adapted(net: nn.Module) -> tuple[nn.Module, str]:
    module, notes, _ = adapt_classifier(net.eval(), SIZE, "net")
    return module, " / ".join(notes)
