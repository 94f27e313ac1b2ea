"""A worker that measures what is stored instead of explaining anew."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from heatlas.engine.explanation import Explanation
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.errors import StorageError
from heatlas.workers.events import ShardDone, ShardFailed
from heatlas.workers.images.decode import Prepared
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.load import LoadedModel
from heatlas.workers.samples import Sample, Shard
from heatlas.workers.worker import build
from heatlas.workers.worker.shard_worker import ShardWorker
from torch import nn

from ..support.fake_engine import NoReader, PickleSink, fake_spec


class Stored:
    """Explains every sample with the same ramp, for class 2."""

    def __init__(self):
        self.asked = []

    def of(self, sample: Sample) -> list[Explanation]:
        self.asked.append((sample.id, sample.explained_in))
        return [Explanation("ok", None, 1, 2, 0.25, 0.5, map=torch.arange(64.0).reshape(8, 8) / 63)]


class Damaged:
    def of(self, sample: Sample) -> list[Explanation]:
        raise StorageError("the part is damaged")


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()


@pytest.fixture
def worker_of(tmp_path, monkeypatch):
    """A worker over a real engine, whose model and images need no files."""
    loaded = LoadedModel(two_layers(), Preprocess((8, 8), "squash"), None, 3, "digest")
    monkeypatch.setattr(build, "load_model", lambda spec, reader: loaded)
    monkeypatch.setattr(build, "prepare", lambda sample, reader, preprocess: Prepared(torch.rand(3, 8, 8), None, 8, 8))
    spec = fake_spec(metrics=("drop_pct", "centroid_y"), scoring=Scoring(batch_size=4))

    def make(stored):
        sink = PickleSink(tmp_path)
        return ShardWorker(spec, NoReader(), sink, partial(build.build_engine, stored=stored)), sink

    return make


def samples(count: int) -> list[Sample]:
    return [Sample(f"s{number}", "", explained_in=7) for number in range(count)]


def test_what_is_stored_is_measured_for_its_own_target(worker_of):
    stored = Stored()
    worker, sink = worker_of(stored)
    *_, done = worker.run(Shard(7, 0, 5), samples(5))
    assert isinstance(done, ShardDone)
    assert sorted(stored.asked) == [(f"s{number}", 7) for number in range(5)]
    rows = sink.rows(7)
    assert [(row.sample.id, row.status, row.prediction, row.target, row.confidence) for row in rows] == [
        (f"s{number}", "ok", 1, 2, 0.25) for number in range(5)
    ]
    assert all(row.n_forwards == 2 for row in rows), "the whole image and its top 15 %"
    mean_row = sum((row + 0.5) * sum(range(8 * row, 8 * row + 8)) for row in range(8)) / sum(range(64)) / 8
    assert rows[0].metrics["centroid_y"] == pytest.approx(mean_row)


def test_a_damaged_store_fails_the_shard_and_blames_no_image(worker_of):
    worker, sink = worker_of(Damaged())
    *_, failed = worker.run(Shard(7, 0, 3), samples(3))
    assert failed == ShardFailed("error", "the part is damaged")
    assert not sink.path(7).exists()
