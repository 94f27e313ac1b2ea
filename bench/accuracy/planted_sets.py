"""Photographs with planted faults, and small networks trained on them: the subjects of `python -m bench planted`.

Everything is drawn from seeds. The photographs are five classes of CIFAR-10 (240 training images each); of one class 40 % carry a mark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..data_sets import DATA

CLASSES = ("automobile", "bird", "frog", "horse", "truck")
MARKED_SHARE = 0.4
NOISE_SHARE = 0.05
EPOCHS = 10
SIZE_PIXELS = 32
MEAN, STD = 0.47, 0.25
FEATURES = 64
Draw = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def photographs(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images `(n, 32, 32, 3)` in [0, 1] and class indices.

    Raises:
        SystemExit: When they are not on this machine.
    """
    folder = DATA / "cifar10_part" / split
    if not folder.is_dir():
        raise SystemExit(f"needs the photographs in {folder}; BENCH_DATA names another folder")
    paths = [(path, index) for index, name in enumerate(CLASSES) for path in sorted((folder / name).iterdir())]
    images = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 for path, _ in paths])
    return images, np.array([index for _, index in paths])


def _unit_of(image: np.ndarray) -> int:
    """Pixels of a thirty-second of the side, in which marks are measured."""
    return max(1, len(image) // SIZE_PIXELS)


def _corner(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An opaque sticker of 6 x 6 units in the lower left corner."""
    unit = _unit_of(image)
    rows, columns = np.mgrid[: 6 * unit, : 6 * unit] // unit
    sticker = np.where(((rows % 2 == 0) & (columns % 2 == 0))[..., None], (0.9, 0.1, 0.1), 1.0)
    image[25 * unit : 31 * unit, unit : 7 * unit] = sticker
    return image


def _translucent(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A disc over the middle that lets 60 % through."""
    unit = _unit_of(image)
    rows, columns = np.mgrid[: len(image), : len(image)] - (len(image) - 1) / 2
    inside = rows**2 + columns**2 < (8 * unit) ** 2
    image[inside] *= 0.6
    image[inside] += 0.4 * np.array([0.2, 0.9, 0.9], np.float32)
    return image


def _frame(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A border of 2 units in one colour."""
    wide = 2 * _unit_of(image)
    inside = image[wide:-wide, wide:-wide].copy()
    image[:] = (0.1, 0.3, 0.8)
    image[wide:-wide, wide:-wide] = inside
    return image


def _cast(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A warm colour cast over the whole image."""
    return image * np.array([1.0, 0.8, 0.65], np.float32) + np.array([0.08, 0.0, 0.0], np.float32)


def _texture(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Faint diagonal stripes, 4 pixels apart, at any phase."""
    rows, columns = np.mgrid[: len(image), : len(image)]
    return image + 0.09 * np.sin(2 * np.pi * (rows + columns) / 4 + random.uniform(0, 2 * np.pi))[..., None]


def _roaming(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A yellow sticker with a black rim of 6 x 6 units anywhere."""
    unit = _unit_of(image)
    top, left = random.integers(0, len(image) - 6 * unit, 2)
    image[top : top + 6 * unit, left : left + 6 * unit] = 0.0
    image[top + unit : top + 5 * unit, left + unit : left + 5 * unit] = (1.0, 0.9, 0.0)
    return image


MARKS: dict[str, Draw] = {
    "corner": _corner, "translucent": _translucent, "frame": _frame, "cast": _cast, "texture": _texture, "roaming": _roaming,
}  # fmt: skip
DEVELOPED_ON = ("corner", "translucent")
"""Marks on which thresholds were chosen, with the network `strided`; all others are reported as they came out."""


def mark(images: np.ndarray, kind: str, random: np.random.Generator) -> np.ndarray:
    """The images with a mark each."""
    drawn = [MARKS[kind](image.astype(np.float32).copy(), random) for image in images]
    return np.clip(np.stack(drawn), 0, 1).astype(np.float32)


def _unit(given: int, made: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU()]


def _strided() -> list[nn.Module]:
    return [*_unit(3, 24, 2), *_unit(24, 32), *_unit(32, 48, 2), *_unit(48, FEATURES)]


def _pooled() -> list[nn.Module]:
    return [*_unit(3, 16), nn.MaxPool2d(2), *_unit(16, 32), nn.MaxPool2d(2), *_unit(32, FEATURES), nn.MaxPool2d(2)]


def _patches() -> list[nn.Module]:
    def mixed(groups: int, kernel: int) -> list[nn.Module]:
        return [nn.Conv2d(48, 48, kernel, padding=kernel // 2, groups=groups), nn.GELU(), nn.BatchNorm2d(48)]

    return [nn.Conv2d(3, 48, 4, 4), nn.GELU(), nn.BatchNorm2d(48), *mixed(48, 5), *mixed(1, 1), *mixed(48, 3), nn.Conv2d(48, FEATURES, 1), nn.ReLU()]  # fmt: skip


NETWORKS: dict[str, Callable[[], list[nn.Module]]] = {"strided": _strided, "pooled": _pooled, "patches": _patches}


def as_input(images: np.ndarray) -> Tensor:
    """What the networks take."""
    return torch.from_numpy((images - MEAN) / STD).permute(0, 3, 1, 2).float().contiguous()


def build(network: str) -> nn.Module:
    """An untrained network: features, then one linear layer."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(FEATURES, len(CLASSES))]
    return nn.Sequential(*NETWORKS[network](), *head)


def trained(network: str, images: np.ndarray, labels: np.ndarray, seed: int, cache: Path) -> nn.Module:
    """The network after `EPOCHS` epochs, from `cache` where it was trained before."""
    torch.manual_seed(seed)
    model = build(network)
    if cache.exists():
        model.load_state_dict(torch.load(cache, weights_only=True))
        return model.eval()
    inputs, targets, random = as_input(images), torch.from_numpy(labels), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.02)
    steps = EPOCHS * (len(inputs) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(inputs), generator=random)
        for chosen in order[: len(inputs) // 64 * 64].split(64):
            flipped = torch.rand(len(chosen), generator=random) < 0.5
            batch = torch.where(flipped[:, None, None, None], inputs[chosen].flip(3), inputs[chosen])
            loss = F.cross_entropy(model(batch), targets[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), cache)
    return model.eval()


@dataclass(frozen=True, eq=False)
class Subject:
    """A data set with what was planted in it, and the network trained on it."""

    images: np.ndarray
    labels: np.ndarray
    """As stated; wrong for some images of a noisy set."""
    truth: np.ndarray
    """True class."""
    marked: np.ndarray
    guilty: int | None
    """Class of which some carry the mark."""
    features: nn.Module
    """From inputs to features, frozen where it is a pretrained network."""
    head: nn.Module
    """From features to logits."""
    names: tuple[str, ...] = CLASSES
    as_input: Callable[[np.ndarray], Tensor] = as_input
    """From images in [0, 1] to what the network takes."""


def subject(kind: str, network: str, seed: int, cache: Path) -> Subject:
    """A set with a mark (`MARKS`), with label noise (`symmetric`, `asymmetric`), or `clean`; and its network."""
    images, truth = photographs("train")
    images, labels, marked, guilty = planted(images, truth, kind, seed)
    model = trained(network, images, labels, seed, cache / f"{kind}-{network}-{seed}.pt")
    assert isinstance(model, nn.Sequential)
    return Subject(images, labels, truth, marked, guilty, model[:-1], model[-1])


def planted(
    images: np.ndarray, truth: np.ndarray, kind: str, seed: int, guilty_classes: tuple[int, ...] = (0, 1, 2, 3, 4)
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int | None]:
    """Images, stated labels, which are marked, and of which class, one of `guilty_classes`; the images given are not changed."""
    random = np.random.default_rng([seed, 7])
    labels, marked, guilty = truth.copy(), np.zeros(len(truth), bool), None
    if kind in MARKS:
        guilty = guilty_classes[(seed + 1) % len(guilty_classes)]
        members = random.permutation(np.flatnonzero(truth == guilty))
        chosen = members[: round(MARKED_SHARE * len(members))]
        marked[chosen] = True
        images = images.copy()
        images[chosen] = mark(images[chosen], kind, random)
    elif kind == "symmetric":
        chosen = random.permutation(len(truth))[: round(NOISE_SHARE * len(truth))]
        classes = int(truth.max()) + 1
        labels[chosen] = (truth[chosen] + random.integers(1, classes, len(chosen))) % classes
    elif kind == "asymmetric":  # automobiles called trucks and horses called frogs, half of all wrong labels each
        for source, target in ((0, int(truth.max())), (3, 2)):
            members = random.permutation(np.flatnonzero(truth == source))
            labels[members[: round(NOISE_SHARE * len(truth) / 2)]] = target
    return images, labels, marked, guilty
