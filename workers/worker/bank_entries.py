"""Labelled samples to a feature bank: decoded in threads, ahead of the model, and whatever is wrong with one image leaves it out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...engine.features.feature_bank import FeatureBank, build_bank
from ...engine.scoring.memory_errors import is_out_of_memory
from ...errors import SampleError, SettingsError
from ..images.decode import Prepared, prepare
from ..models.load import FeatureModel
from ..protocols import SampleReader
from ..samples import Sample

MOST_THREADS = 8


@dataclass
class Skipped:
    """Images that are not in a bank."""

    causes: Counter[str] = field(default_factory=Counter)
    """How many, by status."""
    example: str = ""
    """The first of them and what is wrong with it."""

    def note(self, sample: Sample, error: SampleError) -> None:
        """Count one that cannot be read."""
        self.causes[error.status] += 1
        self.example = self.example or f"{sample.id!r}: {error.text}"


def fill_bank(
    model: FeatureModel,
    batches: Iterable[Sequence[Sample]],
    reader: SampleReader,
    device: torch.device,
    num_classes: int,
    skipped: Skipped,
) -> FeatureBank:
    """Ask the model for the features of every sample.

    Args:
        model: Moved to the device.
        batches: Samples with labels, as many at once as go through the model together.
        reader: Reads them.
        device: Where the model runs.
        num_classes: Of the bank.
        skipped: Takes what is left out: samples that cannot be read, and with the status `no_features` those whose features are not
            finite or all 0.

    Raises:
        SettingsError: When no image is usable, or a batch is too large for the device.
    """
    module = model.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sent = Counter[str]()

    def inputs() -> Iterator[tuple[Tensor, Tensor]]:
        for ready in decoded(batches, reader, model, skipped):
            sent["images"] += len(ready)
            images = torch.stack([prepared.image for _, prepared in ready]).to(device)
            yield images, torch.tensor([sample.label for sample, _ in ready])

    try:
        bank = build_bank(module, inputs(), num_classes)
    except Exception as error:
        if is_out_of_memory(error):
            raise SettingsError(
                f"the device {device} has too little memory for a batch; use a smaller --batch-size, or --device cpu"
            ) from error
        raise
    if missing := sent["images"] - len(bank.features):
        skipped.causes["no_features"] += missing
    return bank


def decoded(
    batches: Iterable[Sequence[Sample]], reader: SampleReader, model: FeatureModel, skipped: Skipped
) -> Iterator[list[tuple[Sample, Prepared]]]:
    """The usable samples of each batch with their images, in order; the next batch is decoded meanwhile."""

    def begun(batch: Sequence[Sample]) -> list[tuple[Sample, Future[Prepared]]]:
        return [(sample, pool.submit(prepare, sample, reader, model.preprocess)) for sample in batch]

    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        waiting: list[tuple[Sample, Future[Prepared]]] = []
        for batch in batches:
            waiting, now = begun(batch), waiting
            if ready := finished(now, skipped):
                yield ready
        if ready := finished(waiting, skipped):
            yield ready


def finished(waiting: Sequence[tuple[Sample, Future[Prepared]]], skipped: Skipped) -> list[tuple[Sample, Prepared]]:
    """What could be decoded; the rest is noted."""
    ready = []
    for sample, decoding in waiting:
        try:
            ready.append((sample, decoding.result()))
        except SampleError as error:
            skipped.note(sample, error)
    return ready
