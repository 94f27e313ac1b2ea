"""What the GPU measurements compute on: networks, images, sizes; the full form for a GPU and the smallest one for a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from bench.data_sets import DATA, boxed_samples, network, prepared

TINY = "a tiny CNN"


@dataclass(frozen=True)
class Workload:
    """Sizes of every step."""

    networks: dict[str, int]
    """Images to explain, by network."""
    accurate: str
    """The network, of these, whose maps are compared."""
    side: int
    """Of the square input, in pixels."""
    batch_sizes: tuple[int, ...]
    precisions: tuple[str, ...]
    rate_seconds: float
    """How long a rate of plain forwards is measured, at least."""
    images: int
    """Different images."""
    many: int
    """Images of the methods that take one pass each."""
    mu: float
    method_settings: dict[str, dict[str, int | str]]
    """Settings of the methods that take many passes or, at their defaults, a file."""
    compile: bool

    def inputs(self) -> Tensor:
        """`(image, 3, side, side)`: photographs where they are on this machine, else seeded noise."""
        if (DATA / "imagenet_boxes" / "labels.csv").exists():
            pictures = torch.stack([prepared(sample).image for sample in boxed_samples(self.images)])
            return nn.functional.interpolate(pictures, size=(self.side, self.side), mode="bilinear", antialias=True)
        return torch.randn(self.images, 3, self.side, self.side, generator=torch.Generator().manual_seed(0))


FULL = Workload(
    networks={"resnet50": 4, "mobilenet_v2": 12}, accurate="mobilenet_v2", side=224, batch_sizes=(64, 256, 512),
    precisions=("bf16", "fp32"), rate_seconds=1.0, images=24, many=256, mu=0.3,
    method_settings={"rise": {"masks": 500}, "feature_cam": {"edges": "sobel"}}, compile=True,
)  # fmt: skip
SMALLEST = Workload(
    networks={TINY: 1}, accurate=TINY, side=32, batch_sizes=(4,), precisions=("fp32",), rate_seconds=0.0,
    images=2, many=2, mu=0.9, method_settings={"rise": {"masks": 4}, "integrated_gradients": {"steps": 2}, "feature_cam": {"edges": "sobel"}}, compile=False,
)  # fmt: skip


def on_device(name: str, device: str) -> nn.Module:
    """The network in eval mode, channels_last, with ImageNet weights where they are here."""
    model = tiny_cnn() if name == TINY else network(name)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def tiny_cnn() -> nn.Module:
    """Two blocks and ten classes, the same random weights every time."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for before, after in ((3, 6), (6, 8)):
        blocks += [
            nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2),
        ]  # fmt: skip
    return nn.Sequential(*blocks[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()


def transformer(side: int, device: str) -> nn.Module:
    """A vision transformer with random weights for that input: ViT-B/16, or a small one for small inputs."""
    torch.manual_seed(0)
    sizes = (12, 12, 768, 3072) if side >= 224 else (2, 2, 16, 32)
    model = VisionTransformer(side, 16, *sizes, num_classes=10)
    nn.init.normal_(model.heads[-1].weight, std=0.1)  # torchvision's zeros would say nothing of the image
    return model.eval().to(device)


def synchronise(device: str) -> None:
    """Wait until the accelerator has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Seconds of one call, the device's work included."""
    synchronise(device)
    begun = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - begun


def rate(run: Callable[[], object], items: int, seconds: float, device: str) -> float:
    """Items per second over at least one call, after one that does not count."""
    seconds_of(run, device)
    done, spent = 0, 0.0
    while done == 0 or spent < seconds:
        spent += seconds_of(run, device)
        done += items
    return done / spent
