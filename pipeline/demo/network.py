"""The demo's model: a residual CNN small enough to be packaged and to be explained in a fraction of a second on one core.

Its four resolutions (48, 24, 12 and 6 pixels on a 96-pixel input) give SISE four blocks with 16, 32, 64 and 96 maps.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...engine.errors import ModelError
from .dataset import CLASS_NAMES, SIZE

WEIGHTS = Path(__file__).with_name("weights.safetensors")
CHANNELS = (16, 32, 64, 96)
MEAN = (0.45, 0.45, 0.45)
STD = (0.25, 0.25, 0.25)


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a `stride` of 2 ends a block and halves the resolution."""

    def __init__(self, channels_in: int, channels: int, *, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.project = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.project = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel_out height_out width_out"]:
        inner = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(inner)) + self.project(x))


class DemoNet(nn.Module):
    """A stem, four residual blocks, average pooling and one linear layer: 216 thousand parameters."""

    def __init__(self, classes: int = len(CLASS_NAMES)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(CHANNELS[0]), nn.ReLU())
        self.block1 = ResidualUnit(CHANNELS[0], CHANNELS[0])
        self.block2 = ResidualUnit(CHANNELS[0], CHANNELS[1], stride=2)
        self.block3 = ResidualUnit(CHANNELS[1], CHANNELS[2], stride=2)
        self.block4 = ResidualUnit(CHANNELS[2], CHANNELS[3], stride=2)
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
        ModelError: If the file is missing, unreadable or belongs to another network.
    """
    network = DemoNet()
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"no demo weights in {str(path)!r} ({error}); `heatlas demo --retrain` makes new ones") from error
    return network.eval()


def weights_metadata(path: str | Path = WEIGHTS) -> dict[str, str]:
    """What the training script recorded beside the weights: seed, recipe and the accuracies of `train.accuracies`."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})
