"""Small networks for `python -m bench edge_loop`: classifiers and segmenters on the trunk of the demo's network, trained in a minute or two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from heatlas.pipeline.demo.dataset import CLASS_NAMES, SIZE, demo_sample
from heatlas.pipeline.demo.network import CHANNELS, MEAN, STD, DemoNet, load_network
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

WIDTH = 48
BATCH, SMALL_BATCH = 32, 8
"""Images of a step; the latter where there are fewer than 512, so that few images make many steps."""
TILE_CLASSES = ("free", "defect")
FAINT = 40
"""Mean of a mask (0 to 255) from which a reduced pixel is a defect; more would lose cracks."""


class TileClassifier(DemoNet):
    """A tile without or with a defect."""

    class_names: ClassVar[tuple[str, ...]] = TILE_CLASSES

    def __init__(self) -> None:
        super().__init__(len(TILE_CLASSES))


class Segmenter(nn.Module):
    """The trunk of the demo's network; its three coarser blocks are brought to a quarter of the input's resolution and added up."""

    preprocess: ClassVar[Mapping[str, object]] = {"size": SIZE, "resize": "squash", "mean": MEAN, "std": STD}

    def __init__(self, class_names: tuple[str, ...]):
        super().__init__()
        self.class_names = class_names
        self.trunk = DemoNet()
        self.trunk.head = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        self.lateral = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in CHANNELS[1:])
        self.smooth = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.head = nn.Conv2d(WIDTH, len(class_names), 1)

    def forward(self, images: Tensor) -> Tensor:
        trunk = self.trunk
        fine = trunk.block2(trunk.block1(trunk.stem(images)))
        middle = trunk.block3(fine)
        total = self.lateral[0](fine)
        for lateral, maps in zip(list(self.lateral)[1:], (middle, trunk.block4(middle)), strict=True):
            total = total + F.interpolate(lateral(maps), total.shape[2:], mode="bilinear", align_corners=False)
        return F.interpolate(self.head(self.smooth(total)), images.shape[2:], mode="bilinear", align_corners=False)


def shape_segmenter() -> Segmenter:
    """Background and the demo's shapes."""
    return Segmenter(("background", *CLASS_NAMES))


def tile_segmenter() -> Segmenter:
    """Sound surface and defect."""
    return Segmenter(TILE_CLASSES)


def tile_classifier() -> TileClassifier:
    """A tile without or with a defect."""
    return TileClassifier()


FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "shape_segmenter": shape_segmenter, "tile_segmenter": tile_segmenter, "tile_classifier": tile_classifier,
}  # fmt: skip


def train(name: str, images: Tensor, targets: Tensor, *, epochs: int, path: Path) -> None:
    """Train a network from the demo's trunk and write its weights; flipped and turned by quarters at random, rare classes weigh more.

    Args:
        name: Of a factory.
        images: Network inputs `(image, 3, height, width)`.
        targets: Class of every image, or of every pixel `(image, height, width)`.
        epochs: Over all images.
        path: Of the safetensors file.
    """
    torch.manual_seed(0)
    network = FACTORIES[name]()
    trunk = {key: value for key, value in load_network().state_dict().items() if not key.startswith("head.")}
    (network.trunk if isinstance(network, Segmenter) else network).load_state_dict(trunk, strict=False)  # pyright: ignore[reportAttributeAccessIssue]
    weights = torch.bincount(targets.flatten(), minlength=int(targets.max()) + 1).double().rsqrt().float()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    batch_size = BATCH if len(images) >= 512 else SMALL_BATCH
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch_size):
            turns, flips = int(torch.randint(4, ())), bool(torch.randint(2, ()))
            batch, wanted = turned(images[chosen], turns, flips), targets[chosen]
            wanted = turned(wanted, turns, flips) if wanted.ndim == 3 else wanted
            logits = network(batch * (0.8 + 0.4 * torch.rand(len(batch), 1, 1, 1)))
            loss = F.cross_entropy(logits, wanted, weight=weights)
            if wanted.ndim == 3:
                loss = loss + dice_loss(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    save_file({key: value.contiguous() for key, value in network.eval().state_dict().items()}, path)


def dice_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """1 less the soft Dice of every class but the background, over all pixels of the batch; classes that it lacks count for nothing."""
    shares, wanted = logits.softmax(dim=1), F.one_hot(classes, logits.shape[1]).movedim(3, 1).to(logits)
    shared, total = ((values).sum(dim=(0, 2, 3))[1:] for values in (shares * wanted, shares + wanted))
    there = wanted.sum(dim=(0, 2, 3))[1:] > 0
    return (1 - 2 * shared / total.clamp(min=1))[there].sum() / max(1, int(there.sum()))


def turned(values: Tensor, turns: int, flips: bool) -> Tensor:
    """Turned by so many quarters in the last two axes, then perhaps flipped."""
    values = torch.rot90(values, turns, (-2, -1))
    return values.flip(-1) if flips else values


def shape_data(count: int) -> tuple[Tensor, Tensor]:
    """Images of the demo's training split without stickers, and the class of every pixel."""
    samples = [demo_sample("train", index, marking="never") for index in range(count)]
    classes = [np.where(sample.mask, 1 + CLASS_NAMES.index(sample.true_label), 0) for sample in samples]
    return torch.stack([as_input(sample.image) for sample in samples]), torch.from_numpy(np.stack(classes)).long()


def tile_data(rows: list[tuple[Path, Path]]) -> tuple[Tensor, Tensor]:
    """Tiles and the class of every pixel, from files of images and masks."""
    images = [
        np.asarray(Image.open(image).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        for image, _ in rows
    ]
    masks = [np.asarray(Image.open(mask).convert("L").resize((SIZE, SIZE), Image.Resampling.BOX)) for _, mask in rows]
    return torch.stack([as_input(image) for image in images]), torch.from_numpy(np.stack(masks) > FAINT).long()


def as_input(image: np.ndarray) -> Tensor:
    """RGB bytes `(height, width, 3)` as the networks take them."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
