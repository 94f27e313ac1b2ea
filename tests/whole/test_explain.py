"""A whole run: a generated image folder and a tiny CNN through the command, with and without Ray."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import heatlas
import numpy as np
import pytest
from heatlas.errors import ShardsUndoneError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.explain.explain import refuse_undone
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.workers.run_totals import RunTotals
from PIL import Image

CLASSES = ("ant", "bee", "cat")
EACH = 5
BAD = "ant/text.jpg"
ROWS = len(CLASSES) * EACH + 1
FACTORY = '''
import torch
from torch import nn


def model() -> nn.Module:
    """Three blocks, three classes, always the same weights."""
    torch.manual_seed(0)
    blocks = []
    for before, after in ((3, 6), (6, 8), (8, 10)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3))


def without_blocks() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 3))


def broken() -> nn.Module:
    raise RuntimeError("no such file: weights.bin")
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A folder with the images in `images` and the factories in `tiny_cnn.py`, which is importable meanwhile."""
    folder = tmp_path_factory.mktemp("explain")
    (folder / "tiny_cnn.py").write_text(FACTORY)
    noise = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = noise.integers(0, 60, (30, 36, 3), dtype=np.uint8)
            pixels[6:18, 4 + number : 16 + number, label] = 220
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    (folder / "images" / BAD).write_text("I am no image")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def calm(place: pathlib.Path) -> pathlib.Path:
    """The store of an undisturbed run in this process."""
    out = place / "calm"
    assert main(command(place, out)) == 0
    return out


def command(place: pathlib.Path, out: pathlib.Path, *more: str) -> list[str]:
    what = ["--model", "tiny_cnn:model", "--data", str(place / "images"), "--out", str(out)]
    how = ["--preprocess.size", "24", "--preprocess.resize", "squash", "--shard-size", "3", "--batch-size", "8"]
    return ["explain", *what, *how, *(() if "--workers" in more else ("--workers", "0")), *more]


def test_summary_tells_rows_errors_metrics_and_where_it_is(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert main(command(place, out)) == 0
    printed, progress = capsys.readouterr()
    assert printed.startswith(f"{out}: complete\n")
    assert f"  rows      {ROWS} of {ROWS} samples\n" in printed
    assert f"  status    ok {ROWS - 1}, decode_error 1\n" in printed
    assert "1 x decode_error: not an image: it is text that begins with 'I am no image'" in printed
    assert "  drop_pct  " in printed
    assert "  forwards  " in printed
    assert "  time      " in printed
    assert f"heatlas show {out}" in printed
    assert f"heatlas: {ROWS} images in 6 shards, tiny_cnn:model with 3 block layers; writing {out}" in progress
    assert f"heatlas: {ROWS}/{ROWS} images" in progress


def test_store_holds_every_image_once(calm: pathlib.Path):
    atlas = heatlas.open(calm)
    rows = atlas.to_pandas(["id", "status", "label", "prediction", "target", "confidence", "ebpg", "drop_pct"])
    assert sorted(rows["id"]) == sorted([BAD, *(f"{name}/{number}.png" for name in CLASSES for number in range(EACH))])
    assert list(rows.loc[rows["status"] != "ok", "id"]) == [BAD]
    good = rows[rows["status"] == "ok"]
    assert (good["target"] == good["prediction"]).all()
    assert list(good["label"]) == [CLASSES.index(identity.split("/")[0]) for identity in good["id"]]
    assert good["ebpg"].isna().all(), "there is no ground truth"
    assert atlas.maps(list(good["id"])).shape == (ROWS - 1, 24, 24)
    assert atlas.run["settings"]["preprocess"]["size"] == [24, 24]
    layers = atlas.metadata["provenance"]["layers"]
    assert [layer["channels"] for layer in layers] == [6, 8, 10]
    assert atlas.run["fingerprint"]["model"]["layers"] == [layer["name"] for layer in layers]
    assert atlas.metadata["metrics"]["drop_pct"]["definition"] == "drop_pct/v1"
    assert atlas.class_names == CLASSES


@pytest.mark.parametrize("workers", [1, 2, pytest.param(3, marks=pytest.mark.soak)])
def test_same_content_for_any_number_of_workers(
    workers: int, place: pathlib.Path, calm: pathlib.Path, tmp_path: pathlib.Path, local_ray: None
):
    out = tmp_path / "out"
    assert main(command(place, out, "--workers", str(workers))) == 0
    assert logical_digest(str(out)) == logical_digest(str(calm))
    assert (out / "_SUCCESS").exists()


def test_python_entry_is_the_same_run(place: pathlib.Path, calm: pathlib.Path, tmp_path: pathlib.Path):
    result = heatlas.explain_dataset(
        model="tiny_cnn:model",
        data=place / "images",
        out=tmp_path / "out",
        workers=0,
        shard_size=3,
        batch_size=8,
        preprocess={"size": 24, "resize": "squash"},
    )
    assert logical_digest(result.out) == logical_digest(str(calm))
    assert (result.rows, result.statuses, result.shards_done) == (ROWS, {"ok": ROWS - 1, "decode_error": 1}, 6)
    assert result.metrics["drop_pct"] == pytest.approx(result.open().to_pandas(["drop_pct"])["drop_pct"].mean())


def test_resumes_only_what_is_missing(
    place: pathlib.Path, calm: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    shutil.copytree(calm, out)
    (out / "_SUCCESS").unlink()
    (out / "maps" / "part-000001.parquet").unlink()
    (out / "maps" / "part-000004.parquet").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "maps").iterdir()}
    assert main(command(place, out)) == 0
    printed, progress = capsys.readouterr()
    assert f"of {ROWS} in 2 shards" in progress
    assert "2 shards (4 by earlier runs)" in printed
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in (out / "maps").iterdir()}.items()
    assert logical_digest(str(out)) == logical_digest(str(calm))


def test_a_complete_run_has_nothing_to_do(place: pathlib.Path, calm: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert main(command(place, calm)) == 0
    printed, progress = capsys.readouterr()
    assert printed.startswith(f"{calm}: was complete already, nothing to do\n")
    assert [line for line in progress.splitlines() if "note: labels are read by" not in line] == []


def test_killed_driver_resumes_to_the_same_content(place: pathlib.Path, calm: pathlib.Path, tmp_path: pathlib.Path):
    out = tmp_path / "out"
    run = [sys.executable, "-m", "heatlas", *command(place, out, "--sise.mu", "0.0")]
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(run, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as driver:
        while not done_shards(str(out)) and driver.poll() is None:
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
    before = set(done_shards(str(out)))
    assert before, "the kill came after the first commit"
    assert main(command(place, out)) == 0
    assert sorted(done_shards(str(out))) == list(range(6))
    assert logical_digest(str(out)) == logical_digest(str(calm))


def test_another_run_is_not_overwritten(place: pathlib.Path, calm: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert main(command(place, calm, "--sise.mu", "0.5", "--seed", "1")) == 2
    text = capsys.readouterr().err
    assert "belongs to another run, which differs in" in text
    assert "sise.mu: stored 0.0, now 0.5" in text
    assert "seed: stored 0, now 1" in text
    assert "--out" in text


@pytest.mark.parametrize("change", [["--workers", "0", "--shard-retries", "1"], ["--max-error-rate", "1"]])
def test_settings_that_change_no_row_may_change(change: list[str], place: pathlib.Path, calm: pathlib.Path):
    assert main(command(place, calm, *change)) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["--model", "torchvision:resnet51"], "unknown torchvision classification model 'resnet51'; did you mean"),
        (["--model", "tiny_cnn:modle"], "modle"),
        (["--model", "tiny_cnn:without_blocks"], "no spatial hierarchy"),
        (["--model", "tiny_cnn:broken"], "no such file: weights.bin"),
        (["--data", "nowhere"], "there is no file or folder nowhere"),
        (["--target", "3"], "target 3 is no class of the model, which has 3, from 0 to 2"),
        (["--target", "lable"], "target 'lable' is neither a class of the model nor a rule; did you mean 'label'?"),
        (["--target", "column:claimed"], "the data set has no further column 'claimed'; it has none"),
        (["--metrics", "ebpq"], "unknown metric 'ebpq'; did you mean 'ebpg'?"),
        (["--sise.layers", "5", "77"], "77"),
        (
            ["--preprocess.mean", "0.5", "0.5"],
            "setting preprocess.mean has 2 numbers; it needs one per channel",
        ),
        (["--out", "nosuch://bucket/run"], "nosuch"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(
    change: list[str], text: str, place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    argv = command(place, out)
    for flag in [entry for entry in change if entry.startswith("--")]:
        if flag in argv:
            at = argv.index(flag)
            del argv[at : at + 2]
    assert main([*argv, *change]) == 2
    printed, told = capsys.readouterr()
    assert told.startswith("heatlas: error: ")
    assert text in told
    assert "Traceback" not in told
    assert printed == ""
    assert not out.exists()


def test_labels_as_targets_without_labels(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(place / "images" / "ant" / "0.png", flat)
    argv = [str(flat) if entry == str(place / "images") else entry for entry in command(place, tmp_path / "out")]
    assert main([*argv, "--target", "label"]) == 2
    assert "the target is 'label', but no sample has a label" in capsys.readouterr().err


@pytest.mark.parametrize("inside", ["", "/out", "/ant/out/"])
def test_a_store_among_the_images_is_refused(
    inside: str, place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    argv = command(place, tmp_path / "out")
    argv[argv.index("--out") + 1] = f"{place / 'images'}{inside}"
    assert main(argv) == 2
    assert "lies in the image folder" in capsys.readouterr().err


def test_limit_target_and_metrics_of_ones_own(place: pathlib.Path, tmp_path: pathlib.Path):
    out = tmp_path / "out"
    own = ["--limit", "4", "--target", "2", "--metrics", "none", "--store.no-map-png", "--store.map-size", "6"]
    assert main(command(place, out, *own)) == 0
    atlas = heatlas.open(out)
    assert len(atlas) == 4
    assert set(atlas.table(["target"])["target"].to_pylist()) == {2}
    assert not {"drop_pct", "map_png"} & set(atlas.schema.names)
    assert atlas.maps().shape[1:] == (6, 6)


def test_mostly_bad_images_stop_the_run(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(24):
        (images / f"{number}.jpg").write_text("no image")
    argv = [str(images) if entry == str(place / "images") else entry for entry in command(place, tmp_path / "out")]
    assert main(argv) == 1
    assert "max_error_rate" in capsys.readouterr().err
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_undone_shards_are_named_with_the_way_on():
    outcome = RunTotals(undone=[(index, f"reason {index}") for index in range(7)])
    with pytest.raises(ShardsUndoneError) as caught:
        refuse_undone(outcome, "store")
    text = str(caught.value)
    assert text.startswith("7 shards of store could not be done:\n  shard 0: reason 0\n")
    assert "and 2 more, see store/_logs" in text
    assert "run the same command again" in text
    with pytest.raises(KeyboardInterrupt):
        refuse_undone(RunTotals(interrupted=True), "store")


def test_event_log_lies_in_the_store(calm: pathlib.Path):
    logs = sorted((calm / "_logs").glob("events-*.jsonl"))
    assert logs
    events = [json.loads(line)["event"] for line in logs[0].read_text().splitlines()]
    assert events.count("ShardFinished") == 6
