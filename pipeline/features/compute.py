"""Run a store's model over its images once more, without masks, for their features, confidences and hashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.features.image_features import features_of
from ...engine.scoring.confidence import CONFIDENCES
from ...errors import RunMismatchError, SampleError, UsageError
from ...workers.images.decode import prepare
from ...workers.images.preprocess import Preprocess
from ...workers.models.load import ModelSpec, load_model
from ...workers.samples import Sample
from ..pictures.stored_images import decoding_of
from ..run_samples import chosen_samples
from ..settings.load import load_settings
from ..sources.reading.reader import FsspecReader
from ..stored_settings import settings_of_run
from .image_hash import perceptual_hash
from .image_table import NO_LABEL, ImageFeatures

if TYPE_CHECKING:
    from ..store.reader import StoreReader

BATCH = 64


@dataclass(frozen=True, eq=False)
class StoredModel:
    """The model of a run, loaded again, and its images."""

    module: nn.Module
    preprocess: Preprocess
    confidence: str
    """`softmax` or `sigmoid`."""
    digest: str
    device: torch.device
    samples: tuple[Sample, ...]
    """With the store's labels, by id; ground truth is not read."""
    reader: FsspecReader

    @cached_property
    def samples_by_id(self) -> dict[str, Sample]:
        return {sample.id: sample for sample in self.samples}

    def batches(self, samples: tuple[Sample, ...]) -> Iterator[tuple[list[Sample], Tensor]]:
        """Samples that could be read, and their images `(batch, channel, height, width)`."""
        ready: list[tuple[Sample, Tensor]] = []
        for sample in samples:
            try:
                ready.append((sample, prepare(sample, self.reader, self.preprocess).image))
            except SampleError:  # an error row of the store, too
                continue
            if len(ready) == BATCH:
                yield [sample for sample, _ in ready], torch.stack([image for _, image in ready])
                ready = []
        if ready:
            yield [sample for sample, _ in ready], torch.stack([image for _, image in ready])

    def images(self, samples: Sequence[Sample]) -> Tensor:
        """Inputs of samples that could be read before, `(sample, channel, height, width)`."""
        return torch.stack([prepare(sample, self.reader, self.preprocess).image for sample in samples])

    def confidences(self, images: Tensor) -> np.ndarray:
        """Confidences `(image, class)` of any number of inputs."""
        return np.concatenate([self.forward(batch)[1] for batch in images.split(BATCH)])

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Features `(batch, feature)` and confidences `(batch, class)`."""
        moved = images.to(self.device)
        features, logits = features_of(self.module, moved), self.module(moved)
        values = logits.sigmoid() if self.confidence == "sigmoid" else logits.softmax(dim=1)
        return features.float().cpu().numpy(), values.float().cpu().numpy()


def load_stored_model(atlas: StoreReader) -> StoredModel:
    """Load the model that a run names, which runs its code, and list the run's data.

    Raises:
        UsageError: For a dense model.
        RunMismatchError: If the model has other weights now.
        ModelError: If it cannot be loaded.
        DataError: If the data set cannot be listed.
    """
    settings = load_settings({**settings_of_run(atlas.run), "out": atlas.uri})
    spec = ModelSpec(
        spec=settings.model, bank=settings.bank, **settings.preprocess.model_dump(), **decoding_of(atlas.run)
    )
    reader = FsspecReader(atlas.run["fingerprint"].get("data_root"))
    model = load_model(spec, FsspecReader())
    if model.dense:
        raise UsageError(
            f"{settings.model} gives every pixel its class; features of whole images are for classifiers only"
        )
    if model.digest != atlas.run["fingerprint"].get("model", {}).get("digest"):
        raise RunMismatchError(f"{settings.model} has other weights or preprocessing now than when {atlas.uri} was written; "
                               "name the model of that run, or explain the data anew into another --out")  # fmt: skip
    listing = chosen_samples(settings, atlas.run["fingerprint"].get("data_root")).listing
    stored = dict(zip(*atlas.table(["id", "label"]).to_pydict().values(), strict=True))
    samples = tuple(
        Sample(identity, uri, stored.get(identity))
        for identity, uri in zip(listing["id"].to_pylist(), listing["uri"].to_pylist(), strict=True)
    )
    stated = atlas.metadata.get("provenance", {}).get("settings", {})
    score = CONFIDENCES.get(stated.get("confidence", stated.get("score", "softmax")), CONFIDENCES["softmax"]).name
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return StoredModel(model.module.to(device), model.preprocess, score, model.digest, device, samples, reader)


def compute_features(model: StoredModel) -> ImageFeatures:
    """Features, confidences and hashes of every image that can be read."""
    ids, labels, hashes, mirrored = [], [], [], []
    features, confidences = [], []
    for samples, images in model.batches(model.samples):
        batch_features, batch_confidences = model.forward(images)
        features.append(batch_features.astype(np.float16))
        confidences.append(batch_confidences)
        grey = images.mean(dim=1).numpy()
        for sample, image in zip(samples, grey, strict=True):
            ids.append(sample.id)
            labels.append(NO_LABEL if sample.label is None else sample.label)
            hashes.append(perceptual_hash(image))
            mirrored.append(perceptual_hash(image[:, ::-1]))
    if not ids:
        raise UsageError("none of the run's images can be read any more; copy or download them again")
    facts = {"model": model.digest, "confidence": model.confidence, "failed": len(model.samples) - len(ids)}
    return ImageFeatures(
        tuple(ids), np.array(labels, np.int64), np.concatenate(features).astype(np.float32), np.concatenate(confidences),
        np.stack(hashes), np.stack(mirrored), facts,
    )  # fmt: skip
