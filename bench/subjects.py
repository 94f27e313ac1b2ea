"""Networks and real images that measurements share."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_model

from heatlas.pipeline.shards import plan_shards, samples_of
from heatlas.pipeline.sources import list_samples
from heatlas.pipeline.sources.listing.labels import resolve_labels
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.workers.images.decode import Prepared, prepare
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Sample
from heatlas.workers.worker.shard_attempt import seed_of

DATA = Path(__file__).parents[2] / "shared" / "data"
BOXED = DATA / "imagenet_boxes" / "labels.csv"
COLUMNS = {"id": "file", "uri": "file", "boxes": "boxes_xyxy"}
PREPROCESS = Preprocess(
    size=(224, 224), resize="squash", interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def network(name: str) -> nn.Module:
    """torchvision's network in eval mode: with ImageNet weights where they are here, else random ones, the same every time."""
    torch.manual_seed(0)
    model = get_model(name, weights=None)
    weights = weights_of(name)
    if weights.exists():
        model.load_state_dict(load_file(weights))
    return model.eval()


def weights_of(name: str) -> Path:
    return DATA / "weights" / f"{name}_imagenet.safetensors"


def boxed_samples(limit: int) -> list[Sample]:
    """The first `limit` boxed ImageNet images in the order of a digest of their names, so that more images are these and others."""
    if not BOXED.exists():
        raise SystemExit(f"needs the evaluation data in {DATA}")
    listing = resolve_labels(list_samples(str(BOXED), COLUMNS), None, 1000).listing
    [shard] = plan_shards(len(listing), len(listing))
    return sorted(samples_of(listing, shard), key=lambda one: seed_of(one.id))[:limit]


def prepared(sample: Sample) -> Prepared:
    """The sample as the networks take it."""
    return prepare(sample, FsspecReader(), PREPROCESS)
