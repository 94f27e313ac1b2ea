"""The model of a run, loaded again, and images of the run with what is marked in them: some to calibrate with, others to measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from ...engine.scoring.confidence import CONFIDENCES, Confidence
from ...errors import RunMismatchError, SampleError, UsageError
from ...statuses import OK
from ...workers.images.decode import Prepared, prepare
from ...workers.models.load import LoadedModel, ModelSpec, load_model
from ...workers.models.onnx_file import OnnxModule
from ...workers.samples import Sample
from ..evaluate.settings import evaluation_settings
from ..pictures.stored_images import decoding_of
from ..run_samples import chosen_samples
from ..shards import sample_of_row
from ..sources.reading.reader import FsspecReader
from ..statistics.one_row_per_image import image_rows
from ..store.reader import StoreReader


@dataclass(frozen=True)
class RunImages:
    """A run's model and an even sample of the images that it explained."""

    spec: str
    """What the run calls its model."""
    model: LoadedModel
    confidence: Confidence
    calibration: tuple[Sample, ...]
    measured: tuple[Sample, ...]
    """None of them calibrates."""
    rows: dict[str, tuple[int, str]]
    """Target and method of the store's row, by id."""
    reader: FsspecReader

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        return (self.model.preprocess.channels, *self.model.preprocess.size)

    def read(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Prepared]]:
        """Those that can still be read."""
        for sample in samples:
            try:
                yield sample, prepare(sample, self.reader, self.model.preprocess)
            except SampleError:
                continue


def load_run_images(atlas: StoreReader, calibration: int, count: int) -> RunImages:
    """Load the model that a run names, which runs its code, and draw images by a digest of their ids.

    Args:
        atlas: The run.
        calibration: Images that show the ranges of activations, at least 1; where there are too few for both, what `count` leaves, at least half.
        count: Others, to be measured, at least 1.

    Raises:
        UsageError: If the model has a feature bank for a classifier or is an ONNX file, or fewer than 2 images have a map and are still listed.
        RunMismatchError: If the model has other weights now.
        ModelError: If it cannot be loaded.
        DataError: If the data set cannot be listed.
    """
    settings = evaluation_settings(atlas.uri, atlas.run, {})
    if settings.bank:
        raise UsageError(
            f"{atlas.uri} classifies by a feature bank, which is no part of a network; heatlas edge exports networks"
        )
    spec = ModelSpec(spec=settings.model, **settings.preprocess.model_dump(), **decoding_of(atlas.run))
    model = load_model(spec, FsspecReader())
    if any(isinstance(part, OnnxModule) for part in model.module.modules()):
        raise UsageError(
            f"{settings.model} is an ONNX file, from which no other can be made; run heatlas edge on a run of the model that it came from"
        )
    fingerprint = atlas.run["fingerprint"]
    if model.digest != (fingerprint.get("model") or {}).get("digest"):
        raise RunMismatchError(
            f"{settings.model} has other weights or preprocessing now than when {atlas.uri} was written; name the model of that run, or "
            "explain the data anew into another --out"
        )
    chosen = atlas.query_rows(
        f"SELECT id, target, method, label FROM {image_rows(atlas)} WHERE status = '{OK}' "
        f"ORDER BY md5_number_lower(id), id LIMIT {calibration + count:d}"
    )
    if len(chosen) < 2:
        raise UsageError(
            f"{atlas.uri} has {len(chosen)} images with a map; at least one calibrates and another is measured"
        )
    listing = chosen_samples(settings, fingerprint.get("data_root")).listing
    labels = {identity: label for identity, _, _, label in chosen}
    wanted = pa.array(
        [place for place, identity in enumerate(listing["id"].to_pylist()) if identity in labels], pa.int64()
    )
    # the store has the labels as class indices, the listing as they are written
    samples = {
        row["id"]: replace(sample_of_row({**row, "label": None}), label=labels[row["id"]])
        for row in listing.take(wanted).to_pylist()
    }
    there = [samples[identity] for identity in labels if identity in samples]
    if len(there) < 2:
        raise UsageError(
            f"{settings.data} has {len(there)} of the {len(chosen)} images of {atlas.uri} that were drawn; at least one calibrates and another "
            "is measured: put the images back where the run found them"
        )
    split = min(calibration, max(len(there) - count, len(there) // 2))
    return RunImages(
        settings.model, model, CONFIDENCES[fingerprint.get("score", "softmax")], tuple(there[:split]), tuple(there[split:]),
        {identity: (target, method) for identity, target, method, _ in chosen}, FsspecReader(fingerprint.get("data_root")),
    )  # fmt: skip
