"""Timing the real engine for the trial, with a clock that counts passes, and what workers say to another device."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch
from heatlas.engine.scoring.pace_trial import AskedPace, PaceTrial, choose_pace
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.errors import RunError, WorkerStartError
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.workers.images.decode import Prepared
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.load import LoadedModel, ModelSpec
from heatlas.workers.ray.trial import try_paces_on_cluster
from heatlas.workers.samples import Sample
from heatlas.workers.worker import build, trial_device
from heatlas.workers.worker.shard_worker import ShardWorker
from heatlas.workers.worker.trial_device import EngineOnTrial, try_paces
from torch import Tensor, nn

from ..support.fake_engine import NoReader, PickleSink, fake_spec, make_shards
from ..support.tiny_run import draw_all, importable_factory


class Timed(nn.Module):
    """Tells a clock what each pass costs: a launch and a share for every row. More than `fits` rows are too many."""

    def __init__(self, fits: int = 10**6):
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.head, self.fits, self.now = nn.Linear(8, 3), fits, 0.0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.now += 0.1 + 0.01 * len(x)
        return self.head(self.high(self.low(x).relu()).relu().mean((2, 3)))


IMAGES = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(number)) for number in range(3)]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Timed:
    torch.manual_seed(0)
    made = Timed().eval()
    loaded = LoadedModel(made, Preprocess((8, 8), "squash"), None, 3, "digest")
    monkeypatch.setattr(build, "load_model", lambda spec, reader: loaded)
    monkeypatch.setattr(build, "prepare", lambda sample, reader, preprocess: Prepared(IMAGES[0], None, 8, 8))
    monkeypatch.setattr(
        "heatlas.engine.scoring.masked_scorer.CPU_ROWS", 10**6
    )  # a batch is one pass, as on an accelerator
    return made


def on_trial(model: Timed, **spec: object) -> EngineOnTrial:
    engine = build.build_engine(fake_spec(scoring=Scoring(batch_size=4), **spec), NoReader())
    assert isinstance(engine, build.ModelEngine)
    return EngineOnTrial(engine, IMAGES, clock=lambda: model.now)


@pytest.mark.parametrize("batch", [1, 8, 64])
def test_rates_are_rows_over_seconds(model: Timed, batch: int):
    assert on_trial(model).rate("fp32", "eager", batch) == pytest.approx(batch / (0.1 + 0.01 * batch))


def test_a_batch_that_does_not_fit_has_no_rate(model: Timed):
    device = on_trial(model)
    model.fits = 31
    assert device.rate("fp32", "eager", 32) is None
    assert device.rate("fp32", "eager", 31) is not None


def test_the_trial_finds_the_largest_useful_batch(model: Timed):
    """Twice the batch gains 5 % as long as a launch is worth a tenth of it: 64 to 128 gains 1.07, 128 to 256 only 1.037."""
    trial = choose_pace(on_trial(model), AskedPace(precision="fp32", forward="eager"), images=3)
    assert trial.batch_size == 128
    model.fits = 100
    assert choose_pace(on_trial(model), AskedPace(precision="fp32", forward="eager"), images=3).batch_size == 64


def test_maps_are_compared_with_those_of_float32(model: Timed):
    device = on_trial(model)
    assert device.agreement("fp32", 4) == pytest.approx(1.0)
    assert device.compared == len(IMAGES)
    assert device.image_seconds == pytest.approx(model.now / 2 / len(IMAGES), rel=0.5)
    assert device.image_forwards is not None
    assert device.image_forwards > 3  # a forward, a backward that counts as two, masks
    rough = device.agreement("bf16", 4)
    assert rough is not None
    assert 0.0 < rough <= 1.0


def test_the_trial_as_a_worker_makes_it(model: Timed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial_device, "TIMED_SECONDS", 0.0)
    samples = make_shards(["", ""], 2)[1][0]
    trial = try_paces(fake_spec(scoring=Scoring(batch_size=4)), NoReader(), samples, AskedPace(batch_size=4), 2.0)
    assert trial is not None
    assert (trial.device, trial.batch_size) == ("cpu", 4)
    assert trial.image_seconds is not None
    assert trial.image_seconds > 0
    assert {timed.batch_size for timed in trial.tried} == {4}


def test_another_device_is_refused_by_every_worker(model: Timed, tmp_path):
    for tried_on, refused in ((None, False), ("cpu", False), ("cuda:NVIDIA H200", True)):
        report = ShardWorker(fake_spec(tried_on=tried_on), NoReader(), PickleSink(tmp_path)).start()
        assert (report.error is not None) == refused
    assert report.error is not None
    assert "chosen for cuda:NVIDIA H200, and this worker has cpu" in report.error
    assert "--any-device" in report.error


def on_cluster(folder: pathlib.Path, model: str, **more: Any) -> PaceTrial | None:
    draw_all(folder / "images", 2)
    samples = [Sample(path.stem, str(path)) for path in sorted((folder / "images").rglob("*.png"))]
    spec = fake_spec(model=ModelSpec(spec=model, size=(24, 24), resize="squash"), scoring=Scoring(batch_size=4))
    options = {"address": "local", "gpus": 1.0, "cpus": 1.0, "timeout": 120.0, **more}
    return try_paces_on_cluster(spec, FsspecReader(), samples, AskedPace(batch_size=4, forward="eager"), 2.0, **options)


def test_the_trial_runs_where_a_worker_would(two_gpus, tmp_path):
    with importable_factory(tmp_path):
        trial = on_cluster(tmp_path, "tiny_net:model")
    assert trial is not None
    assert (trial.device, trial.forward, trial.batch_size) == ("cpu", "eager", 4)
    assert trial.rate > 0


def test_a_trial_that_fails_says_why(two_gpus, tmp_path):
    with (
        importable_factory(tmp_path),
        pytest.raises(WorkerStartError, match=r"forward and batch size failed.*no_such_net"),
    ):
        on_cluster(tmp_path, "no_such_net:model")
    with importable_factory(tmp_path), pytest.raises(RunError, match="took longer than 0 seconds; name them"):
        on_cluster(tmp_path, "tiny_net:model", timeout=0.01)
