"""The real images of `python -m bench.evaluation`, and the networks that classify them; nothing of either is part of the project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import nn
from torchvision.models import mobilenet_v2

from heatlas.pipeline.shards import plan_shards, samples_of
from heatlas.pipeline.sources import list_samples
from heatlas.pipeline.sources.listing.labels import resolve_labels
from heatlas.workers.samples import Sample
from heatlas.workers.worker.shard_attempt import seed_of

DATA = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True)
class DataSet:
    """Images with ground truth, and the network that classifies them."""

    name: str
    title: str
    columns: dict[str, str]
    model: Callable[[], nn.Module]
    classes: int
    scores: str
    """Name of the folder for scores of masks."""

    def samples(self, limit: int) -> list[Sample]:
        """The first `limit` in the order of their digests, so that more images are these and others."""
        listing = list_samples(str(DATA / self.name / "labels.csv"), self.columns)
        listing = resolve_labels(listing, None, self.classes).listing
        [shard] = plan_shards(len(listing), len(listing))
        return sorted(samples_of(listing, shard), key=lambda one: seed_of(one.id))[:limit]


def imagenet() -> nn.Module:
    model = mobilenet_v2()
    model.load_state_dict(load_file(DATA / "weights" / "mobilenet_v2_imagenet.safetensors"))
    return model.eval()


def tiles() -> nn.Module:
    """The same network with a head for six kinds of tiles."""
    model = mobilenet_v2(num_classes=6)
    trunk = load_file(DATA / "weights" / "mobilenet_v2_imagenet.safetensors")
    trunk = {name: tensor for name, tensor in trunk.items() if not name.startswith("classifier.")}
    model.load_state_dict(trunk | load_file(DATA / "weights" / "magnetic_tile_head.safetensors"))
    return model.eval()


DATA_SETS = (
    DataSet("imagenet_boxes", "ImageNet validation images with boxes", {"id": "file", "uri": "file", "boxes": "boxes_xyxy"}, imagenet, 1000, "mobilenet_v2"),
    DataSet("magnetic_tile", "Magnetic tiles with defect masks", {"id": "file", "uri": "file", "mask": "mask"}, tiles, 6, "magnetic_tile"),
)  # fmt: skip
