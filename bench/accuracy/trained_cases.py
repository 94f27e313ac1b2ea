"""The three settings in which trained explainers are measured: the demo, and photographs through MobileNetV2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from heatlas.pipeline.demo.dataset import write_dataset
from heatlas.workers.worker.shard_attempt import seed_of
from safetensors.torch import save_file
from torch import nn

from ..data_sets import DATA, DATA_SETS, weights_of
from .planted_sets import MEAN, SIZE_PIXELS, STD, build, photographs, trained

SMALL = "strided"

DEMO_MODEL = "heatlas.pipeline.demo.network:demo_model"


@dataclass(frozen=True)
class TrainedCase:
    """A classifier, its images, and how much is spent on each explainer."""

    name: str
    title: str
    model: str
    data: Path
    ids: tuple[str, ...]
    """Of all images, those to try on first, those to verify last."""
    verify: int
    """Images that nothing is trained on."""
    sizes: tuple[int, ...]
    """Maps of SISE that students are trained on."""
    epochs: Mapping[str, int]
    """By method."""
    auxiliary: str
    """P-TAME's."""
    masks: int
    """Of RISE."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of every run and training."""
    sise: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("drop_pct", "insertion_auc", "ebpg")
    rates: bool = False
    """Whether maps alone are timed, in the place of an estimate for a GPU."""

    @property
    def to_try(self) -> tuple[str, ...]:
        return self.ids[: len(self.ids) - self.verify]

    @property
    def to_verify(self) -> tuple[str, ...]:
        return self.ids[len(self.ids) - self.verify :]


def demo_case(out: Path, images: int, sizes: tuple[int, ...], epochs: int) -> TrainedCase:
    """The demo's images and network, one half to try on."""
    data = write_dataset(out / "data", "train", images)
    return TrainedCase(
        "demo", f"The demo's network and images, {images // 2} to try on; P-TAME's auxiliary network is the same one", DEMO_MODEL,
        data if data.is_file() else out / "data" / "manifest.csv", tuple(f"train-{number:05d}" for number in range(images)), images // 2,
        sizes, {"ttame": epochs, "student": epochs, "ptame": epochs, "explainer_network": epochs}, DEMO_MODEL, 500,
    )  # fmt: skip


def small_network() -> nn.Module:
    """The network of `small_case`, untrained."""
    return build(SMALL)


def small_case(out: Path, images: int, verify: int, sizes: tuple[int, ...], epochs: int) -> TrainedCase:
    """Photographs of 32 x 32 pixels through a small network, which was trained on one part of them; those to verify are of the other part."""
    photos, labels = photographs("train")
    network, weights = trained(SMALL, photos, labels, 0, out / "small.pt"), out / "small.safetensors"
    save_file(network.state_dict(), weights)
    folder = DATA / "cifar10_part"
    order = sorted((str(path.relative_to(folder)) for path in folder.glob("*/*/*.jpg")), key=seed_of)
    held = [name for name in order if name.startswith("test/")][:verify]
    to_try = [name for name in order if name not in set(held)][: images - verify]
    manifest = out / "images.csv"
    manifest.write_text(
        "".join(f"{row}\n" for row in ("id,uri", *(f"{name},{folder / name}" for name in (*to_try, *held))))
    )
    settings = {
        "preprocess": {"size": SIZE_PIXELS, "resize": "squash", "mean": (MEAN,) * 3, "std": (STD,) * 3},
    }  # fmt: skip
    return TrainedCase(
        f"small-{images}",
        f"Photographs of 32 x 32 pixels (five classes of CIFAR-10) through a network of {sum(map(torch.numel, network.parameters())):,} weights, "
        f"{len(to_try):,} to try on (students: as many as they have maps)",
        f"{__name__}:small_network@{weights}", manifest, (*to_try, *held), len(held), sizes,
        {"ttame": epochs, "student": epochs, "ptame": 2, "explainer_network": epochs},
        f"torchvision:mobilenet_v2@{weights_of('mobilenet_v2')}", 300, settings, {"sise": {"mu": 0.3}}, ("drop_pct", "insertion_auc"), True,
    )  # fmt: skip


def photograph_case(images: int, verify: int, sizes: tuple[int, ...], side: int) -> TrainedCase:
    """ImageNet photographs with boxes through MobileNetV2; SqueezeNet lends P-TAME its features."""
    samples = [sample.id for sample in DATA_SETS[0].samples(images)]
    settings = {
        "columns": DATA_SETS[0].columns,
        "preprocess": {"size": side, "resize": "squash", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    }  # fmt: skip
    return TrainedCase(
        f"photographs-{side}",
        f"ImageNet photographs at {side} x {side} through MobileNetV2, {images - verify} to try on (students: as many as they have maps)",
        f"torchvision:mobilenet_v2@{weights_of('mobilenet_v2')}", DATA / "imagenet_boxes" / "labels.csv", tuple(samples), verify, sizes,
        {"ttame": 3, "student": 20, "ptame": 3, "explainer_network": 12},
        f"torchvision:squeezenet1_0@{weights_of('squeezenet1_0')}", 150, settings, {"sise": {"mu": 0.3}},
    )  # fmt: skip
