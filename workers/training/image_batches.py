"""Samples to batches of network input, decoded in threads ahead of the model; the order follows from seed and epoch alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import SampleError
from ..images.decode import Prepared, prepare
from ..images.preprocess import Preprocess
from ..protocols import SampleReader
from ..samples import Sample
from .training_spec import TeacherMap

MOST_THREADS = 8


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Images of one step, those that could be read."""

    samples: list[Sample]
    images: Tensor
    targets: Tensor | None
    """Classes of the teacher's maps, if there is a teacher."""
    teacher: Tensor | None
    skipped: int
    truths: Sequence[Tensor | None] = ()
    """Ground truth of each image, as `Prepared` has it."""

    def to(self, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What a training step takes."""
        images = self.images.to(device, memory_format=torch.channels_last)
        if self.targets is None or self.teacher is None:
            return images, None, None
        return images, self.targets.to(device), self.teacher.to(device)


def epoch_batches(samples: Sequence[Sample], batch_size: int, seed: int, epoch: int) -> list[list[Sample]]:
    """The samples in a new order for every epoch, in whole batches: the last is filled with the epoch's first ones."""
    order = np.random.default_rng([seed, epoch]).permutation(len(samples))
    count = -(-len(samples) // batch_size)
    places = np.resize(order, count * batch_size).reshape(count, batch_size)
    return [[samples[place] for place in row] for row in places]


def share_of(batch: Sequence[Sample], rank: int, world: int) -> list[Sample]:
    """One rank's part of a batch."""
    return list(batch[rank::world])


def decoded_batches(
    batches: Sequence[Sequence[Sample]],
    reader: SampleReader,
    preprocess: Preprocess,
    teacher: dict[str, TeacherMap],
) -> Iterator[TrainingBatch]:
    """The batches in order; the next one is decoded while one is used."""
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:

        def begun(batch: Sequence[Sample]) -> list[tuple[Sample, Future[Prepared]]]:
            return [(sample, pool.submit(prepare, sample, reader, preprocess)) for sample in batch]

        waiting: list[list[tuple[Sample, Future[Prepared]]]] = []
        for batch in batches:
            waiting.append(begun(batch))
            if len(waiting) > 1:
                yield ready_batch(waiting.pop(0), teacher)
        for rest in waiting:
            yield ready_batch(rest, teacher)


def ready_batch(waiting: list[tuple[Sample, Future[Prepared]]], teacher: dict[str, TeacherMap]) -> TrainingBatch:
    """What could be decoded; a batch without any image has an empty tensor."""
    ready: list[tuple[Sample, Prepared]] = []
    for sample, future in waiting:
        try:
            ready.append((sample, future.result()))
        except SampleError:
            continue
    samples = [sample for sample, _ in ready]
    images = torch.stack([prepared.image for _, prepared in ready]) if ready else torch.empty(0, 1, 1, 1)
    skipped = len(waiting) - len(ready)
    truths = [prepared.truth for _, prepared in ready]
    if not teacher:
        return TrainingBatch(samples, images, None, None, skipped, truths)
    teacher_maps = [teacher[sample.id] for sample in samples]
    maps = np.stack([entry.map for entry in teacher_maps]) if teacher_maps else np.zeros((0, 1, 1))
    targets = torch.tensor([entry.target for entry in teacher_maps], dtype=torch.long)
    return TrainingBatch(samples, images, targets, torch.from_numpy(maps.astype(np.float32)), skipped, truths)
