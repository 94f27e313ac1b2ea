"""Networks for the oracle tests: random, seeded, and scaled so that masks change the score and no float is near its limit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision.models as zoo
from torch import Tensor, nn

CLASSES = 10


@dataclass(frozen=True)
class Architecture:
    """One of torchvision's, with the layers that the specification's table demands and a case that takes seconds."""

    build: Callable[..., nn.Module]
    layers: tuple[str, ...]
    size: tuple[int, int]
    mu: float
    """Keeps the number of masks small where a forward is slow; the selection itself is compared for every mu elsewhere."""
    image_seed: int
    """An image on which float32 is good enough for the oracle's own maps to stay as they are in float64; 0 where none is at hand.

    A ReLU whose input is almost 0 opens or closes with the last bit, and where maps are 2 x 2 that moves an alpha by a percent;
    and a top layer of many masks is flat before it is min-maxed, which makes rounding a hundred times larger.
    """


def vgg16_with_small_head(num_classes: int, batch_norm: bool = False) -> nn.Module:
    """VGG-16 whose first linear layer has 64 outputs, not 4096: the same trunk without half a gigabyte of weights."""
    features = zoo.vgg.make_layers(zoo.vgg.cfgs["D"], batch_norm=batch_norm)
    with torch.device("meta"):
        model = zoo.vgg.VGG(features, num_classes)
    model.classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, num_classes)
    )
    return model


ARCHITECTURES = {
    "vgg16": Architecture(
        vgg16_with_small_head,
        ("features.3", "features.8", "features.15", "features.22", "features.29"),
        (32, 32),
        0.7,
        1,
    ),
    "vgg16_bn": Architecture(
        functools.partial(vgg16_with_small_head, batch_norm=True),
        ("features.5", "features.12", "features.22", "features.32", "features.42"),
        (32, 40),
        0.6,
        2,
    ),
    "resnet18": Architecture(zoo.resnet18, ("relu", "layer1", "layer2", "layer3", "layer4"), (64, 64), 0.5, 1),
    "resnet50": Architecture(zoo.resnet50, ("relu", "layer1", "layer2", "layer3", "layer4"), (64, 64), 0.7, 0),
    "densenet121": Architecture(
        zoo.densenet121,
        (
            "features.relu0",
            "features.transition1.conv",
            "features.transition2.conv",
            "features.transition3.conv",
            "relu",
        ),
        (64, 64),
        0.7,
        2,
    ),
    "mobilenet_v2": Architecture(
        zoo.mobilenet_v2, ("features.1", "features.3", "features.6", "features.13", "features.18"), (64, 80), 0.4, 0
    ),
    "convnext_tiny": Architecture(
        zoo.convnext_tiny, ("features.2.0", "features.4.0", "features.6.0", "features.7"), (64, 64), 0.6, 4
    ),
}


class ThreeBlocks(nn.Module):
    """Three convolutions, each followed by a max-pool, then the mean of every channel into a linear head."""

    layers = ("relu1", "relu2", "relu3")

    def __init__(self, channels: int = 3, widths: tuple[int, int, int] = (6, 8, 10), classes: int = CLASSES):
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(channels, widths[0], 3, padding=1), nn.ReLU(inplace=True)
        self.conv2, self.relu2 = nn.Conv2d(widths[0], widths[1], 3, padding=1), nn.ReLU(inplace=True)
        self.conv3, self.relu3 = nn.Conv2d(widths[1], widths[2], 3, padding=1), nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(widths[2], classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(self.relu1(self.conv1(images)))
        maps = self.pool(self.relu2(self.conv2(maps)))
        return self.head(self.relu3(self.conv3(maps)).mean(dim=(2, 3)))


def three_blocks(seed: int, channels: int = 3, size: tuple[int, int] = (24, 24), **kwargs) -> nn.Module:
    torch.manual_seed(seed)
    return scaled(ThreeBlocks(channels, **kwargs), channels, size)


def architecture(name: str, seed: int = 0) -> nn.Module:
    """The untrained network with its head for `CLASSES` classes, normalisation statistics measured and logits scaled."""
    torch.manual_seed(seed)
    arch = ARCHITECTURES[name]
    return scaled(arch.build(num_classes=CLASSES), 3, arch.size)


def scaled(model: nn.Module, channels: int, size: tuple[int, int]) -> nn.Module:
    """Makes an untrained network behave like a trained one: activations of order 1, logits that depend on the image."""
    probes = images_like(12, channels, size, seed=99)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics become those of the one batch below
        if hasattr(module, "layer_scale"):
            nn.init.constant_(module.layer_scale, 0.3)
    with torch.no_grad():
        if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            model.train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()
            model(probes)
        model.eval()
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        logits = model(probes)
        scale = 2.0 / logits.std(dim=0).mean()
        head.weight *= scale
        head.bias.copy_(scale * (head.bias - logits.mean(dim=0)))
    return model


def images_like(count: int, channels: int, size: tuple[int, int], seed: int) -> Tensor:
    """(count, channels, height, width): smooth blobs plus grain, about in [-2, 2], like normalised photographs."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randn(count, channels, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(blobs, size=size, mode="bicubic", align_corners=False)
    return smooth + 0.2 * torch.randn(count, channels, *size, generator=generator)
