"""The real engine of a worker: what it tells of its start, what it remembers of its memory, where images are pinned."""

from __future__ import annotations

import warnings

import pytest
import torch
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.workers.events import ShardDone, WorkerNote
from heatlas.workers.images.decode import Prepared
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.in_process import explain_in_process
from heatlas.workers.models.load import LoadedModel
from heatlas.workers.worker import build
from heatlas.workers.worker.shard_worker import ShardWorker
from torch import Tensor, nn

from ..support.fake_engine import NoReader, NotedEngine, PickleSink, fake_spec, make_shards


class Plain(nn.Module):
    """Cannot be traced, because it looks at its batch size: more than `fits` rows are too many."""

    def __init__(self, fits: int = 64):
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.head, self.fits = nn.Linear(8, 3), fits

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.head(self.high(self.low(x).relu()).relu().mean((2, 3)))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch):
    """Lets the engine find this model and random images."""

    def load(model: nn.Module) -> None:
        result = LoadedModel(model.eval(), Preprocess((8, 8), "squash"), None, 3, "digest")
        monkeypatch.setattr(build, "load_model", lambda spec, reader: result)
        image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
        monkeypatch.setattr(build, "prepare", lambda sample, reader, preprocess: Prepared(image, None, 8, 8))

    torch.manual_seed(0)
    return load


def test_what_could_not_be_built_is_told_once_at_the_start(loaded, tmp_path):
    loaded(Plain())
    shards, samples = make_shards(["", "", ""], 1)
    events = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the note must come as an event and not on the worker's stderr
        outcome = explain_in_process(
            shards, lambda shard: samples[shard.index], fake_spec(scoring=Scoring(forward="fold_bn", batch_size=4)), NoReader(),
            PickleSink(tmp_path), on_event=events.append,
        )  # fmt: skip
    assert outcome.statuses == {"ok": 3}
    [note] = [event.text for event in events if isinstance(event, WorkerNote)]
    assert note.startswith("fold_bn is not possible for this model here (ValueError: torch.fx cannot follow")


def test_nothing_is_warmed_up_when_nobody_asks(loaded):
    loaded(Plain(fits=0))
    assert build.build_engine(fake_spec(scoring=Scoring(batch_size=4)), NoReader()).notes == ()


def test_the_micro_batch_that_fitted_is_recorded(loaded, tmp_path):
    loaded(Plain(fits=3))
    shards, samples = make_shards(["", ""], 2)
    worker = ShardWorker(fake_spec(scoring=Scoring(batch_size=8)), NoReader(), PickleSink(tmp_path))
    done = list(worker.run(shards[0], samples[0]))[-1]
    assert isinstance(done, ShardDone)
    assert done.statuses == {"ok": 2}
    assert done.batch_size == worker.engine.batch_size == 2


@pytest.mark.parametrize("method", ["sise", "grad_cam"])
def test_maps_do_not_depend_on_shards_sharing_batches(loaded, tmp_path, monkeypatch, method):
    """Bit for bit, where a shard leaves images in batches that the next one fills."""
    loaded(Plain())

    def prepared(sample, reader, preprocess):
        return Prepared(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(int(sample.id[1:]))), None, 8, 8)

    monkeypatch.setattr(build, "prepare", prepared)
    shards, samples = make_shards([""] * 11, 3)
    rows = {}
    for overlap in (False, True):
        folder = tmp_path / str(overlap)
        folder.mkdir()
        sink = PickleSink(folder)
        spec = fake_spec(method=method, metrics=("drop_pct",), scoring=Scoring(batch_size=4, images=4))
        outcome = explain_in_process(
            shards, lambda shard: samples[shard.index], spec, NoReader(), sink, overlap=overlap
        )  # fmt: skip
        assert outcome.statuses["ok"] >= 10
        rows[overlap] = [row for shard in shards for row in sink.rows(shard.index)]
    for alone, shared in zip(rows[False], rows[True], strict=True):
        assert alone.sample.id == shared.sample.id
        assert alone.status == shared.status
        if alone.map is not None:
            assert (alone.map == shared.map).all()
        assert alone.metrics == shared.metrics
        assert (alone.confidence, alone.n_forwards) == (shared.confidence, shared.n_forwards)


def test_images_for_a_gpu_are_pinned_where_they_are_decoded(loaded, monkeypatch):
    loaded(Plain())
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    engine = build.build_engine(fake_spec(scoring=Scoring(batch_size=4)), NoReader())
    [sample] = make_shards([""], 1)[1][0]
    engine.prepare(sample, NoReader())
    assert pinned == []
    engine._torch_device = torch.device("cuda")  # type: ignore[attr-defined]
    prepared = engine.prepare(sample, NoReader())
    assert len(pinned) == 1
    assert pinned[0] is prepared.image


def test_a_note_travels_in_the_start_report(tmp_path):
    worker = ShardWorker(fake_spec(), NoReader(), PickleSink(tmp_path), NotedEngine)
    assert worker.start().notes == ("slower than asked for",)
