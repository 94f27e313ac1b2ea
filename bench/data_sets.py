"""Networks and real images that measurements share; neither is part of the project."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from heatlas.pipeline.shards import plan_shards, samples_of
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.labels import resolve_labels
from heatlas.pipeline.sources.listing.options import SourceOptions
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.workers.images.decode import Prepared, prepare
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Sample
from heatlas.workers.worker.shard_attempt import seed_of
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_model, mobilenet_v2

DATA = Path(os.environ.get("BENCH_DATA") or Path(__file__).parents[2] / "shared" / "data")
"""The folder of images and weights: beside the checkout, or where BENCH_DATA points."""
PREPROCESS = Preprocess(
    size=(224, 224), resize="squash", interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


@dataclass(frozen=True)
class DataSet:
    """Images with ground truth, and the network that classifies them."""

    name: str
    title: str
    columns: dict[str, str]
    model: Callable[[], nn.Module]
    classes: int
    scores: str
    """Name of the folder for confidences of masks."""

    def samples(self, limit: int) -> list[Sample]:
        """The first `limit` in the order of a digest of their names, so that a larger limit adds images and keeps these.

        Raises:
            SystemExit: When the images are not on this machine.
        """
        manifest = DATA / self.name / "labels.csv"
        if not manifest.exists():
            raise SystemExit(f"needs the evaluation data in {DATA}; BENCH_DATA names another folder")
        listing = resolve_labels(
            list_source(str(manifest), SourceOptions(columns=self.columns)).listing, None, self.classes
        ).listing
        [shard] = plan_shards(len(listing), len(listing))
        return sorted(samples_of(listing, shard), key=lambda sample: seed_of(sample.id))[:limit]


def network(name: str) -> nn.Module:
    """torchvision's network in eval mode: with ImageNet weights where they are here, else random ones, the same every time."""
    torch.manual_seed(0)
    model = get_model(name, weights=None)
    weights = weights_of(name)
    if weights.exists():
        model.load_state_dict(load_file(weights))
    return model.eval()


def weights_of(name: str) -> Path:
    """The file of a network's ImageNet weights, which need not exist."""
    return DATA / "weights" / f"{name}_imagenet.safetensors"


def imagenet_network() -> nn.Module:
    """MobileNetV2 with ImageNet weights, in eval mode."""
    model = mobilenet_v2()
    model.load_state_dict(load_file(weights_of("mobilenet_v2")))
    return model.eval()


def tile_network() -> nn.Module:
    """The same network with a head for six kinds of tiles."""
    model = mobilenet_v2(num_classes=6)
    trunk = load_file(weights_of("mobilenet_v2"))
    trunk = {name: tensor for name, tensor in trunk.items() if not name.startswith("classifier.")}
    model.load_state_dict(trunk | load_file(DATA / "weights" / "magnetic_tile_head.safetensors"))
    return model.eval()


DATA_SETS = (
    DataSet("imagenet_boxes", "ImageNet validation images with boxes", {"id": "file", "uri": "file", "boxes": "boxes_xyxy"}, imagenet_network, 1000, "mobilenet_v2"),
    DataSet("magnetic_tile", "Magnetic tiles with defect masks", {"id": "file", "uri": "file", "mask": "mask"}, tile_network, 6, "magnetic_tile"),
)  # fmt: skip
SQUEEZENET = DataSet("imagenet_boxes", "the same images with SqueezeNet 1.0", {"id": "file", "uri": "file", "boxes": "boxes_xyxy"}, lambda: network("squeezenet1_0"), 1000, "squeezenet1_0")  # fmt: skip
"""Beside `DATA_SETS`, for what must hold on another network."""


def boxed_samples(limit: int) -> list[Sample]:
    """The first `limit` boxed ImageNet images."""
    return DATA_SETS[0].samples(limit)


def prepared(sample: Sample) -> Prepared:
    """The sample as the networks take it."""
    return prepare(sample, FsspecReader(), PREPROCESS)
