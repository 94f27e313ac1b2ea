"""Precision, forward and batch size of whole runs: plain on a CPU, by one trial on an accelerator, and as stored ever after.

A trial runs for real, on a CPU that passes for an accelerator.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import heatlas
import pytest
import torch
from heatlas.engine.scoring.pace_trial import PaceTrial
from heatlas.errors import RunError
from heatlas.pipeline.explain import pace
from heatlas.pipeline.explain.pace import PLAIN, images_of_a_minute, settled_pace
from heatlas.pipeline.plan.forecast import plan_run
from heatlas.pipeline.plan.forecast_text import format_forecast
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.renamed import current_names, forward_of
from heatlas.pipeline.store.run_file import read_run
from heatlas.workers.worker import trial_device

from ..support.tiny_run import draw_all, importable_factory

REQUIRED = {"model": "tiny_net:model", "data": "images", "out": "out"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    folder = tmp_path_factory.mktemp("pace")
    draw_all(folder / "images", 6)
    with importable_factory(folder):
        yield folder / "images"


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU passes for one of two accelerators, and measures hastily."""
    monkeypatch.setattr(pace, "accelerators", lambda settings: 2.0)
    monkeypatch.setattr(trial_device, "TIMED_SECONDS", 0.0)
    monkeypatch.setattr("heatlas.engine.scoring.pace_trial.LARGEST_BATCH", 128)
    monkeypatch.setattr(trial_device, "FORWARDS", ("eager", "fold_bn"))


def explain(images: pathlib.Path, out: pathlib.Path, **settings: object) -> heatlas.RunResult:
    size = {"size": 24, "resize": "squash"}
    return heatlas.explain_dataset(
        model="tiny_net:model",
        data=images,
        out=out,
        workers=0,
        preprocess=size,
        metrics="none",
        chance_maps=0,
        **settings,
    )  # type: ignore[misc]


def trials(monkeypatch: pytest.MonkeyPatch) -> list[PaceTrial | None]:
    """Every trial from now on."""
    made: list[PaceTrial | None] = []
    real = trial_device.try_paces
    monkeypatch.setattr(trial_device, "try_paces", lambda *given: made.append(real(*given)) or made[-1])
    return made


def test_on_a_cpu_nothing_is_tried_and_runs_are_as_before(images, tmp_path, monkeypatch):
    made = trials(monkeypatch)
    explain(images, tmp_path / "auto")
    explain(images, tmp_path / "named", precision="fp32", forward="eager", batch_size=64)
    stored, named = (read_run(str(tmp_path / name)) for name in ("auto", "named"))
    assert stored["fingerprint"] == named["fingerprint"]
    assert made == []
    assert "trial" not in stored
    assert {name: stored["settings"][name] for name in PLAIN} == dict.fromkeys(PLAIN, "auto")


def test_one_trial_decides_for_the_run_and_every_resumption(images, tmp_path, monkeypatch, accelerator, caplog):
    made, out = trials(monkeypatch), tmp_path / "out"
    with caplog.at_level("INFO", logger="heatlas"):
        explain(images, out, shard_size=3)
    [trial] = made
    run = read_run(str(out))
    assert trial is not None
    assert PaceTrial.of_record(run["trial"]) == trial
    told = f"chosen on cpu: --precision {trial.precision}"
    assert told in caplog.text
    facts = run["fingerprint"]
    assert (facts["precision"], forward_of(facts), facts["batch_size"]) == (
        trial.precision,
        trial.forward,
        trial.batch_size,
    )
    rows = heatlas.open(str(out)).to_pandas()
    assert set(rows["precision"]) == {trial.precision}
    (out / "maps" / "part-000001.parquet").unlink()
    monkeypatch.setattr(pace, "accelerators", lambda settings: 0.0)  # a driver without a GPU
    assert explain(images, out, shard_size=3).shards_done == 1
    assert len(made) == 1
    assert read_run(str(out)) == run


def test_another_device_is_refused_unless_allowed(images, tmp_path, accelerator):
    out = tmp_path / "out"
    explain(images, out, shard_size=3)
    run = json.loads((out / "_run.json").read_text())
    run["trial"]["device"] = "cuda:NVIDIA H200"
    (out / "_run.json").write_text(json.dumps(run))
    (out / "maps" / "part-000000.parquet").unlink()
    with pytest.raises(RunError, match=r"chosen for cuda:NVIDIA H200, and this worker has cpu.*--any-device"):
        explain(images, out, shard_size=3)
    assert explain(images, out, shard_size=3, any_device=True).shards_done == 1


def test_what_is_named_is_not_tried(images, tmp_path, monkeypatch, accelerator):
    made = trials(monkeypatch)
    explain(images, tmp_path / "out", precision="fp32", batch_size=5)
    [trial] = made
    assert trial is not None
    assert (trial.precision, trial.batch_size) == ("fp32", 5)
    assert {(timed.precision, timed.batch_size) for timed in trial.tried} == {("fp32", 5)}
    explain(images, tmp_path / "all", precision="fp32", forward="eager", batch_size=5)
    assert len(made) == 1


@pytest.mark.parametrize(("fast", "taken"), [(9.0, "exact"), (0.1, "fast")])
def test_exact_is_taken_and_said_where_a_preset_is_no_faster(
    images, tmp_path, monkeypatch, accelerator, caplog, fast, taken
):
    seconds = {"fast": fast, "exact": 1.0}
    monkeypatch.setattr(
        trial_device.EngineOnTrial, "image_seconds_with", lambda self, budget, *how: seconds[str(budget)]
    )
    out = tmp_path / "out"
    with caplog.at_level("INFO", logger="heatlas"):
        explain(images, out, budget="fast", precision="fp32", forward="eager", batch_size=8)
    said = "--budget exact, which is faster here than fast: 1.000 s an image beside 9.000 s"
    assert (said in caplog.text) == (taken == "exact")
    run = read_run(str(out))
    assert run["fingerprint"]["budget"] == taken
    assert run["settings"]["budget"] == "fast"
    (out / "maps" / "part-000000.parquet").unlink()
    assert explain(images, out, budget="fast", precision="fp32", forward="eager", batch_size=8).shards_done == 1
    rows = heatlas.open(str(out)).to_pandas()
    assert rows["surrogate_error"].isna().all() == (taken == "exact")


def test_a_budget_of_a_number_is_meant_as_it_stands(images, tmp_path, monkeypatch, accelerator):
    made = trials(monkeypatch)
    explain(images, tmp_path / "out", budget=9, precision="fp32", forward="eager", batch_size=8)
    assert made == []
    assert read_run(str(tmp_path / "out"))["fingerprint"]["budget"] == 9


def test_a_second_command_that_began_the_run_meanwhile_counts(images, tmp_path, monkeypatch, accelerator):
    """Both made a trial; the one that came later does as the first one's says."""
    out, real = tmp_path / "out", trial_device.try_paces

    def slow(*given: object) -> PaceTrial | None:
        monkeypatch.setattr(trial_device, "try_paces", real)
        explain(images, out, batch_size=7)  # another process
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(trial_device, "try_paces", slow)
    result = explain(images, out)
    assert result.shards_done == 0
    assert read_run(str(out))["fingerprint"]["batch_size"] == 7


def test_a_stored_run_settles_what_is_open():
    asked = load_settings(REQUIRED)
    for facts, forward in (({"compile": True}, "compile"), ({"forward": "cuda_graph"}, "cuda_graph"), ({}, "eager")):
        settled = settled_pace(asked, {"fingerprint": {"precision": "tf32", "batch_size": 32, **facts}})
        assert settled is not None
        assert (settled.precision, settled.forward, settled.batch_size) == ("tf32", forward, 32)


def test_plan_makes_the_trial_and_tells_its_rate(images, tmp_path, monkeypatch, accelerator):
    made = trials(monkeypatch)
    size = {"size": 24, "resize": "squash"}
    asked = {
        "model": "tiny_net:model",
        "data": str(images),
        "out": str(tmp_path / "out"),
        "workers": 0,
        "preprocess": size,
    }
    forecast = plan_run(load_settings(asked), images=2)
    [trial] = made
    assert trial is not None
    rate = forecast.rate
    assert (rate.forwards_per_second, rate.batch_size, rate.precision, rate.forward) == (
        trial.rate,
        trial.batch_size,
        trial.precision,
        trial.forward,
    )
    assert f"batch {trial.batch_size}, chosen by a trial" in format_forecast(forecast)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("seconds", "images", "workers", "least"), [
    (None, 10**6, 8, 1), (1.0, 10**6, 8, 60), (0.01, 10**6, 8, 6000), (1.0, 2000, 8, 12), (120.0, 10**6, 8, 1), (1.0, 10, 8, 1),
])  # fmt: skip
def test_a_shard_takes_a_minute_but_leaves_twenty_to_each_worker(seconds, images, workers, least):
    trial = PaceTrial("cuda:x", "fp32", "eager", 64, 1.0, image_seconds=seconds)
    assert images_of_a_minute(trial, images, workers) == least


def test_settings_of_older_runs_are_read():
    assert current_names({"fold_bn": True, "compile": False})["forward"] == "fold_bn"
    assert current_names({"fold_bn": True, "compile": True})["forward"] == "compile"
    assert current_names({"fold_bn": False, "compile": False})["forward"] == "eager"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_plan_and_explain_agree_that_a_cpu_is_none():
    settled = settled_pace(load_settings(REQUIRED), None)
    assert settled is not None
    assert {name: getattr(settled, name) for name in PLAIN} == PLAIN
