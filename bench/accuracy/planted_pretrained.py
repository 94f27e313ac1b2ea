"""The same faults planted into larger images before a network that was pretrained on others: photographs and steel tiles, MobileNetV2 (ImageNet).

Its features stay as they are; a linear layer is trained on them, on the labels as stated. No threshold was chosen on these sets.
"""

from __future__ import annotations

import csv
import os
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from ..data_sets import DATA
from .planted_sets import CLASSES, Subject, photographs, planted

PRETRAINED = ("photographs_mobilenet", "tiles_mobilenet")
SIDE_PIXELS = 96
PER_CLASS = int(os.environ.get("PLANTED_PER_CLASS", "120"))
"""Photographs of each class, the first ones."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEPS = 300
FEWEST_IMAGES = 25
"""Images of a tile class that may carry a mark."""


def pretrained_subject(kind: str, network: str, seed: int) -> Subject:
    """A set with what was planted, before the frozen network and its trained layer."""
    images, truth, names = _photographs() if network == PRETRAINED[0] else _tiles()
    enough = tuple(int(label) for label in np.flatnonzero(np.bincount(truth) >= FEWEST_IMAGES))
    images, labels, marked, guilty = planted(images, truth, kind, seed, enough)
    body = _body()
    with torch.no_grad():
        features = torch.cat([body(batch) for batch in as_input(images).split(64)])
    return Subject(
        images, labels, truth, marked, guilty, body, _head(features, labels, len(names), seed), names, as_input
    )


def as_input(images: np.ndarray) -> Tensor:
    """What the network takes."""
    return torch.from_numpy((images - np.array(MEAN)) / np.array(STD)).permute(0, 3, 1, 2).float().contiguous()


def _photographs() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Enlarged from 32 pixels."""
    images, truth = photographs("train")
    kept = np.concatenate([np.flatnonzero(truth == label)[:PER_CLASS] for label in range(len(CLASSES))])
    enlarged = F.interpolate(
        torch.from_numpy(images[kept]).permute(0, 3, 1, 2), size=(SIDE_PIXELS, SIDE_PIXELS), mode="bilinear"
    )
    return enlarged.permute(0, 2, 3, 1).numpy(), truth[kept], CLASSES


def _tiles() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Grey images of steel surfaces, about 120 of six classes."""
    folder = DATA / "magnetic_tile"
    if not folder.is_dir():
        raise SystemExit(f"needs the tiles in {folder}; BENCH_DATA names another folder")
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {int(row["label"]): row["class_name"] for row in rows}
    read = [Image.open(folder / row["file"]).convert("RGB").resize((SIDE_PIXELS, SIDE_PIXELS)) for row in rows]
    images = np.stack([np.asarray(image, np.float32) / 255 for image in read])
    return images, np.array([int(row["label"]) for row in rows]), tuple(names[label] for label in sorted(names))


@cache
def _body() -> nn.Module:
    """MobileNetV2 without its last layer."""
    weights = DATA / "weights" / "mobilenet_v2_imagenet.safetensors"
    if not weights.is_file():
        raise SystemExit(f"needs the weights {weights}; BENCH_DATA names another folder")
    net = mobilenet_v2()
    net.load_state_dict(load_file(weights))
    return nn.Sequential(net.features, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def _head(features: Tensor, labels: np.ndarray, classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    head, targets = nn.Linear(features.shape[1], classes), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3, weight_decay=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(head(features), targets, label_smoothing=0.05).backward()
        optimizer.step()
    return head.eval()
