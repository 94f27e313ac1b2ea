"""HED, Holistically-Nested Edge Detection (Xie and Tu, ICCV 2015): edges as people draw them, by a VGG-16 with five side outputs.

Weights are the user's file and never part of heatlas: the authors' Caffe model is for research, and re-packed copies have their own
licences. Two layouts are read: `conv1_1.weight` ... `score_dsn5.bias`, `fuse.weight`, after the Caffe layers, and the one of the copies in
circulation for PyTorch (`moduleVggOne.0.weight` or `netVggOne.0.weight` ... `netCombine.0.bias`).
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import ModelError

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each stage."""
MEAN_BGR = (104.00699, 116.66877, 122.67892)
"""Subtracted from values in [0, 255]."""
LARGEST_FILE_MIB = 256
NUMBERS = ("One", "Two", "Three", "Four", "Five")


class HED(nn.Module):
    """Of RGB images in [0, 1] `(batch, 3, height, width)` the edge strength `(batch, height, width)` in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        before = 3
        for stage, (channels, count) in enumerate(STAGES, start=1):
            for number in range(1, count + 1):
                self.add_module(f"conv{stage}_{number}", nn.Conv2d(before, channels, 3, padding=1))
                before = channels
            self.add_module(f"score_dsn{stage}", nn.Conv2d(channels, 1, 1))
        self.fuse = nn.Conv2d(len(STAGES), 1, 1)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
        size = images.shape[2:]
        mean = torch.tensor(MEAN_BGR, device=images.device, dtype=images.dtype)
        values, sides = 255 * images.flip(1) - mean[:, None, None], []
        for stage, (_, count) in enumerate(STAGES, start=1):
            if stage > 1:
                values = F.max_pool2d(values, 2, ceil_mode=True)
            for number in range(1, count + 1):
                values = self.get_submodule(f"conv{stage}_{number}")(values).relu()
            side = self.get_submodule(f"score_dsn{stage}")(values)
            sides.append(F.interpolate(side, size=size, mode="bilinear", align_corners=False))
        return self.fuse(torch.cat(sides, dim=1)).sigmoid()[:, 0]


def load_hed(path: str) -> HED:
    """The network with the weights of a file.

    Args:
        path: A safetensors file, or a state dict that `torch.save` wrote (read without running code).

    Raises:
        ModelError: When the file is missing, too large, unreadable, or holds other weights.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"the HED weights {path} are no file; give one, or edges=sobel, which needs none")
    if file.stat().st_size > LARGEST_FILE_MIB * 2**20:
        raise ModelError(f"the HED weights {path} are larger than {LARGEST_FILE_MIB} MiB, so they are not HED's")
    try:
        stored = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ModelError(f"cannot read the HED weights {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(stored, dict) or not all(isinstance(values, Tensor) for values in stored.values()):
        raise ModelError(f"{path} is no state dict of HED: it must map names to tensors")
    network = HED()
    named = {canonical_name(str(name)): values for name, values in stored.items()}
    missing = [name for name in network.state_dict() if name not in named]
    if missing:
        raise ModelError(f"{path} lacks HED's weights {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}")
    try:
        network.load_state_dict({name: named[name] for name in network.state_dict()})
    except RuntimeError as error:
        raise ModelError(
            f"the weights in {path} have other shapes than HED's: {str(error).splitlines()[-1].strip()}"
        ) from error
    return network.eval().requires_grad_(False)


def canonical_name(name: str) -> str:
    """`moduleVggTwo.1.weight` -> `conv2_1.weight`, `netScoreOne.bias` -> `score_dsn1.bias`; others stay."""
    layer, _, kind = name.removeprefix("module").removeprefix("net").rpartition(".")
    if layer in ("Combine.0", "Combine"):
        return f"fuse.{kind}"
    for stage, number in enumerate(NUMBERS, start=1):
        if layer == f"Score{number}":
            return f"score_dsn{stage}.{kind}"
        place = layer.removeprefix(f"Vgg{number}.")
        if (
            place != layer and place.isdecimal()
        ):  # convolutions stand at 0, 2 in the first stage; behind a pool at 1, 3, 5 in others
            return f"conv{stage}_{int(place) // 2 + 1}.{kind}"
    return name
