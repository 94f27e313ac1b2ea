"""A second rank of trainings, in a process of its own, for tests that are the first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.workers.training.train_rank import RankTraining
from heatlas.workers.training.training_spec import TrainingDone, TrainingEvent, TrainingSpec

WORLD = 2


def train_rank(spec: TrainingSpec, meeting: Path, rank: int, checkpoint: Path | None = None) -> list[TrainingEvent]:
    """Train together with the other rank, from a checkpoint if there is one; both meet at a file that nothing else uses."""
    limit = timedelta(minutes=2)  # a rank whose process has died is not waited for
    dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=WORLD, timeout=limit)
    try:
        given = None if checkpoint is None else checkpoint.read_bytes()
        return list(RankTraining(spec, FsspecReader(), rank, WORLD).run(given))
    finally:
        dist.destroy_process_group()


def second_rank(trainings: Sequence[tuple[TrainingSpec, Path, Path | None]], folder: Path) -> None:
    """The second rank of each training in turn; what it holds in the end is written beside."""
    for number, (spec, meeting, checkpoint) in enumerate(trainings):
        done = train_rank(spec, meeting, 1, checkpoint)[-1]
        assert isinstance(done, TrainingDone)
        (folder / f"{number}.safetensors").write_bytes(done.state)
