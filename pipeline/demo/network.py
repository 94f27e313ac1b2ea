"""The demo's model: a residual CNN small enough to be packaged and to be explained in a fraction of a second on one core.

Its four resolutions (48, 24, 12 and 6 pixels on a 96-pixel input) give SISE four blocks with 16, 32, 64 and 96 maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...workers.models.weights import fit, read_weights
from .dataset import CLASS_NAMES, SIZE

WEIGHTS = Path(__file__).with_name("weights.safetensors")
CHANNELS = (16, 32, 64, 96)
MEAN = (0.45, 0.45, 0.45)
STD = (0.25, 0.25, 0.25)


def halving(channels_in: int, channels: int) -> nn.Conv2d:
    """A convolution to half the resolution whose outputs lie midway between input pixels, as upsampled maps assume.

    The usual 3x3 kernel sits half a pixel up and left of that; over four halvings its maps come out 7.5 pixels off.
    """
    return nn.Conv2d(channels_in, channels, 4, 2, 1, bias=False)


class ResidualUnit(nn.Module):
    """Two convolutions beside a shortcut; with `halve` it starts a new block at half the resolution."""

    def __init__(self, channels_in: int, channels: int, *, halve: bool = False):
        super().__init__()
        self.conv1 = halving(channels_in, channels) if halve else nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.project = nn.Identity()
        if halve:
            widen = nn.Conv2d(channels_in, channels, 1, bias=False)
            self.project = nn.Sequential(nn.AvgPool2d(2), widen, nn.BatchNorm2d(channels))

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel_out height_out width_out"]:
        inner = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(inner)) + self.project(x))


class DemoNet(nn.Module):
    """A stem, four residual blocks, average pooling and one linear layer: 284 thousand parameters."""

    class_names: ClassVar[tuple[str, ...]] = CLASS_NAMES
    preprocess: ClassVar[Mapping[str, object]] = {"size": SIZE, "resize": "squash", "mean": MEAN, "std": STD}
    """What `workers/models/factory.py` reads; other images than the demo's are squashed to its size."""

    def __init__(self, classes: int = len(CLASS_NAMES)):
        super().__init__()
        self.stem = nn.Sequential(halving(3, CHANNELS[0]), nn.BatchNorm2d(CHANNELS[0]), nn.ReLU())
        self.block1 = ResidualUnit(CHANNELS[0], CHANNELS[0])
        self.block2 = ResidualUnit(CHANNELS[0], CHANNELS[1], halve=True)
        self.block3 = ResidualUnit(CHANNELS[1], CHANNELS[2], halve=True)
        self.block4 = ResidualUnit(CHANNELS[2], CHANNELS[3], halve=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(CHANNELS[3], classes)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch class"]:
        x = self.block4(self.block3(self.block2(self.block1(self.stem(x)))))
        return self.head(self.pool(x).flatten(1))


def save_weights(path: str | Path, network: DemoNet, metadata: dict[str, str]) -> None:
    """Write the network's float32 tensors with what is known about them."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata=metadata)


def load_network(path: str | Path = WEIGHTS) -> DemoNet:
    """The network with the weights of a file, in eval mode.

    Raises:
        ModelError: If the file is missing, damaged or belongs to another network.
    """
    network = DemoNet()
    fit(network, read_weights(str(path)).tensors, str(path))
    return network.eval()


def demo_model() -> DemoNet:
    """The factory of `--model heatlas.pipeline.demo.network:demo_model`: the packaged network with its classes and preprocessing."""
    return load_network()


def weights_metadata(path: str | Path = WEIGHTS) -> dict[str, str]:
    """What the training script recorded beside the weights: seed, recipe and the accuracies of `train.accuracies`."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})
