"""The evaluation data's photographs with boxes, and the network that was trained for them, where they are there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from .checkout import SHARED_DATA as DATA

WEIGHTS = DATA / "weights" / "mobilenet_v2_imagenet.safetensors"
IMAGES = DATA / "imagenet_boxes"
TILES = DATA / "magnetic_tile"
TILE_HEAD = DATA / "weights" / "magnetic_tile_head.safetensors"
SIDE = 224
COUNT = 8
NEEDS_DATA = pytest.mark.outside_files(
    "shared/data/weights/mobilenet_v2_imagenet.safetensors", "shared/data/imagenet_boxes"
)
NEEDS_TILES = pytest.mark.outside_files(
    "shared/data/weights/mobilenet_v2_imagenet.safetensors", "shared/data/weights/magnetic_tile_head.safetensors", "shared/data/magnetic_tile"
)  # fmt: skip


def trained() -> nn.Module:
    """MobileNetV2 with ImageNet weights, in eval mode."""
    network = mobilenet_v2()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def samples() -> list[dict[str, str]]:
    """`COUNT` rows of the list, evenly spread."""
    with (IMAGES / "labels.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return rows[:: len(rows) // COUNT][:COUNT]


def trained_on_tiles() -> nn.Module:
    """The same network with the head for magnetic tiles, in eval mode."""
    network = trained()
    network.classifier[1] = nn.Linear(1280, 6)
    network.load_state_dict(load_file(TILE_HEAD), strict=False)
    return network.eval()


def tiles() -> list[str]:
    """File names of the magnetic tiles."""
    return sorted(path.name for path in TILES.glob("*.jpg"))


def tile_input(name: str) -> Tensor:
    """As `network_input`, of a magnetic tile."""
    return network_input(name, TILES)


def network_input(name: str, folder: Path = IMAGES) -> Tensor:
    """(channel, height, width), as the data's README prescribes."""
    pixels = np.array(Image.open(folder / name).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (image - mean[:, None, None]) / std[:, None, None]


def truth_of(row: dict[str, str]) -> Tensor:
    """(height, width) bool: pixels whose centre is in a box."""
    scale_x, scale_y = SIDE / int(row["width"]), SIDE / int(row["height"])
    centres = torch.arange(SIDE) + 0.5
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for left, top, right, bottom in json.loads(row["boxes_xyxy"]):
        in_rows = (centres >= top * scale_y) & (centres < bottom * scale_y)
        in_columns = (centres >= left * scale_x) & (centres < right * scale_x)
        inside |= in_rows[:, None] & in_columns
    return inside
