"""Small networks, each with one trait that a block rule or a capture can get wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(
    inputs: int, outputs: int, side: int = 3, *, stride: int = 1, padding: int | None = None, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride, side // 2 if padding is None else padding, groups=groups)


def head(channels: int, classes: int = 5) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def pooled() -> nn.Sequential:
    """Blocks end before pools; dropout, identities and the last pool end none."""
    return nn.Sequential(
        conv(3, 4), nn.ReLU(inplace=True), nn.Dropout(), nn.MaxPool2d(2),
        conv(4, 6), nn.ReLU(inplace=True), nn.Identity(), nn.AvgPool2d(2),
        conv(6, 8), nn.ReLU(inplace=True), nn.MaxPool2d(2), *head(8),
    )  # fmt: skip


class Bottleneck(nn.Module):
    """A residual unit that widens before it strides, as torchvision's ResNet-50 does in every first unit of a stage."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.wide, self.strided, self.out = (
            conv(inputs, 2 * outputs, 1),
            conv(2 * outputs, 2 * outputs, stride=2),
            conv(2 * outputs, outputs, 1),
        )
        self.bypass = conv(inputs, outputs, 1, stride=2)
        self.act = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.act(self.out(self.act(self.strided(self.act(self.wide(maps))))) + self.bypass(maps))


def residual() -> nn.Sequential:
    return nn.Sequential(conv(3, 4), Bottleneck(4, 6), Bottleneck(6, 8), *head(8))


class Normalised(nn.Module):
    """Centres its input by a constant made in the forward, before anything learned."""

    def __init__(self) -> None:
        super().__init__()
        self.body = pooled()

    def forward(self, images: Tensor) -> Tensor:
        return self.body((images - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / 2)


class Functional(nn.Module):
    """Functional activations; the first one's fx name is also the path of a module that runs later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.relu = conv(3, 4), conv(4, 6), nn.ReLU()
        self.fc = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.max_pool2d(F.relu(self.conv1(images), inplace=True), 2)
        return self.fc(self.relu(self.conv2(maps)).mean((2, 3)))


class Shared(nn.Module):
    """One ReLU module for all blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(3, 4), conv(4, 6), conv(6, 8)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(self.relu(self.conv1(images)))
        maps = self.pool(self.relu(self.conv2(maps)))
        return self.fc(self.relu(self.conv3(maps)).mean((2, 3)))


class Branching(Shared):
    """Decides by a value of its input, which no trace can follow; keeps its last maps, an attribute to be left alone."""

    last: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        if images.abs().max() > 1e6:
            images = images / 1e6
        self.last = self.conv1(images)
        return super().forward(images)


class ChannelsLast(nn.Module):
    """Keeps its maps as (batch, height, width, channel) between blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.mix = conv(3, 4), nn.LayerNorm(4), nn.Linear(4, 6)
        self.down, self.fc = conv(6, 8, stride=2), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.gelu(self.mix(self.norm(self.stem(images).permute(0, 2, 3, 1))))
        return self.fc(self.down(maps.permute(0, 3, 1, 2)).mean((2, 3)))


class Wrapped(nn.Module):
    """Returns its logits inside something."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.body, self.wrap = pooled(), wrap

    def forward(self, images: Tensor):
        return self.wrap(self.body(images))
