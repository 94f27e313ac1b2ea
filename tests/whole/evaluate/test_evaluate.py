"""`heatlas evaluate`: values, resumption, and what it shows."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import signal
import subprocess

import heatlas
import numpy as np
import pytest
from heatlas.engine.metrics import METRICS
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.committed_shards import done_shards, read_part, row_totals
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.evaluations import list_evaluations

from ...support.evaluate_run import BAD, CHEAP, COUNT, DEAR, evaluate, explain
from ...support.tiny_run import draw, environment, program, wait_until


@pytest.fixture(scope="module")
def calm(folder: pathlib.Path) -> pathlib.Path:
    """The bare store with the cheap metrics added, undisturbed."""
    out = folder / "calm"
    shutil.copytree(folder / "bare", out)
    assert evaluate(out, *CHEAP) == 0
    return out


def digests(out: pathlib.Path) -> dict[str, str]:
    """What was added, by name."""
    return {evaluation.name: logical_digest(str(out), evaluation.folder) for evaluation in list_evaluations(str(out))}


def parts(out: pathlib.Path) -> dict[str, tuple[int, int]]:
    result = (out / "metrics").rglob("part-*.parquet")
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in result}


def span(name: str) -> float:
    low, high = METRICS[name].range
    return high - low if np.isfinite([low, high]).all() else 1.0


def test_values_are_those_of_a_run_with_the_metrics_up_to_the_map_s_float16(folder: pathlib.Path, calm: pathlib.Path):
    added, at_once = heatlas.open(calm).to_pandas(), heatlas.open(folder / "whole").to_pandas()
    assert list(added["id"]) == list(at_once["id"])
    for name in CHEAP:
        first, other = added[name].to_numpy(float), at_once[name].to_numpy(float)
        assert (np.isnan(first) == np.isnan(other)).all(), name
        assert np.nanmax(np.abs(first - other)) <= 1e-3 * span(name), name
    with_truth = added["status"].eq("ok") & added["ebpg"].notna()
    assert 4 <= with_truth.sum() < COUNT - 1, "some have boxes, some have none"


def test_further_explanations_are_made_with_the_run_s_settings(folder: pathlib.Path, bare: pathlib.Path):
    assert evaluate(bare, *DEAR) == 0
    added, at_once = heatlas.open(bare).to_pandas(), heatlas.open(folder / "whole").to_pandas()
    for name in DEAR:
        assert added[name].notna().sum() == at_once[name].notna().sum() >= COUNT - 2
        assert np.nanmax(np.abs(added[name] - at_once[name])) <= 0.01, name


def test_the_explained_class_is_the_one_that_is_measured(folder: pathlib.Path, tmp_path: pathlib.Path):
    for name, metrics in (("later", "none"), ("at-once", "drop_pct")):
        assert explain(folder, tmp_path / name, "--target", "label", "--metrics", metrics, "--limit", "6") == 0
    assert evaluate(tmp_path / "later", "drop_pct") == 0
    later, at_once = (heatlas.open(tmp_path / name).to_pandas() for name in ("later", "at-once"))
    assert (later["target"] != later["prediction"]).any()
    assert np.allclose(later["drop_pct"], at_once["drop_pct"], atol=0.1, equal_nan=True)
    assert later["drop_pct"].nunique() > 1


def test_rows_without_a_map_have_nulls_and_are_not_touched(calm: pathlib.Path):
    rows = heatlas.open(calm).to_pandas()
    assert list(rows.loc[rows["status"] != "ok", "id"]) == [BAD]
    assert rows.loc[rows["id"] == BAD, CHEAP].isna().all(axis=None)
    [entry] = list_evaluations(str(calm))
    measured = [identity for index in range(5) for identity in read_part(str(calm), index, ["id"], entry.folder)["id"].to_pylist()]  # fmt: skip
    assert measured == [identity for identity in rows["id"] if identity != BAD]
    assert rows["n_forwards"].sum() == heatlas.open(calm).sql("SELECT sum(n_forwards) FROM atlas").fetchall()[0][0]


def test_two_workers_add_the_same(bare: pathlib.Path, calm: pathlib.Path, local_ray: None):
    assert evaluate(bare, *CHEAP, workers=2) == 0
    assert digests(bare) == digests(calm)
    assert len(digests(bare)) == 1


def test_killed_and_resumed_it_adds_the_same(folder: pathlib.Path, bare: pathlib.Path, calm: pathlib.Path):
    argv = program("evaluate", str(bare), "--metrics", *CHEAP, "--workers", "0")
    with subprocess.Popen(
        argv, env=environment(folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as driver:
        assert wait_until(lambda: list((bare / "metrics").glob("*/part-*.parquet")) or driver.poll() is not None)
        driver.send_signal(signal.SIGKILL)
    before = parts(bare)
    assert before
    assert evaluate(bare, *CHEAP) == 0
    assert digests(bare) == digests(calm)
    assert before.items() <= parts(bare).items(), "what was there stays"


def test_a_second_time_there_is_nothing_to_do(calm: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    before = parts(calm)
    assert evaluate(calm, *CHEAP) == 0
    printed, progress = capsys.readouterr()
    assert printed.startswith(f"{calm}: nothing to do, the metrics are there\n")
    assert progress == ""
    assert parts(calm) == before


def test_only_new_metrics_are_computed(folder: pathlib.Path, bare: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate(bare, "gini", "drop_pct") == 0
    assert evaluate(bare, "standard") == 0
    first, second = list_evaluations(str(bare))
    assert list(first.metrics) == ["gini", "drop_pct"]
    assert "gini" not in second.metrics
    assert "entropy" in second.metrics
    assert "note: layer_agreement: left out" in capsys.readouterr().err


def test_what_was_begun_is_completed_whole(bare: pathlib.Path, calm: pathlib.Path):
    shutil.copytree(calm / "metrics", bare / "metrics")
    [begun] = (bare / "metrics").iterdir()
    (begun / "_SUCCESS").unlink()
    (begun / "part-000002.parquet").unlink()
    kept = parts(bare)
    assert evaluate(bare, CHEAP[3]) == 0
    assert digests(bare) == digests(calm)
    assert kept.items() <= parts(bare).items()
    assert (begun / "_SUCCESS").exists()


def test_metrics_of_the_run_are_not_computed_again(folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    out = tmp_path / "out"
    shutil.copytree(folder / "whole", out)
    assert evaluate(out, "gini") == 0
    printed, progress = capsys.readouterr()
    assert "note: gini: stored by the run itself" in progress
    assert "nothing to do" in printed
    assert not (out / "metrics").exists()


def test_shards_that_come_later_are_added_later(folder: pathlib.Path, bare: pathlib.Path, calm: pathlib.Path, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    (bare / "_SUCCESS").unlink()
    (bare / "maps" / "part-000001.parquet").unlink()
    assert evaluate(bare, *CHEAP) == 0
    assert "1 shard of the run not explained yet; evaluate again when they are" in capsys.readouterr().out
    [entry] = list_evaluations(str(bare))
    assert sorted(done_shards(str(bare), entry.folder)) == [0, 2, 3, 4]
    assert not (bare / entry.folder / "_SUCCESS").exists()
    assert heatlas.open(bare).to_pandas(["gini"])["gini"].notna().sum() == COUNT - 4

    assert explain(folder, bare, "--metrics", "none") == 0
    assert heatlas.open(bare).to_pandas(["id", "gini"])["gini"].isna().sum() == 4, (
        "three not measured yet, one has no map"
    )
    assert evaluate(bare, *CHEAP) == 0
    assert digests(bare) == digests(calm)


def test_rows_that_a_retry_repaired_are_measured(folder: pathlib.Path, bare: pathlib.Path):
    assert evaluate(bare, "gini", "drop_pct") == 0
    before = parts(bare)
    broken = (folder / "images" / BAD).read_bytes()
    try:
        draw(folder / "images" / BAD, 4)
        assert explain(folder, bare, "--metrics", "none", "--retry-errors") == 0
        assert evaluate(bare, "gini", "drop_pct") == 0
    finally:
        (folder / "images" / BAD).write_bytes(broken)
    rows = heatlas.open(bare).to_pandas(["id", "gini"])
    assert rows["gini"].notna().all()
    changed = {name for name, identity in parts(bare).items() if before[name] != identity}
    assert len(changed) == 1, "only the part of the repaired row was replaced"


def test_an_image_that_has_gone_costs_its_own_row(folder: pathlib.Path, bare: pathlib.Path, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    gone = folder / "images" / "cat" / "002.png"
    data = gone.read_bytes()
    try:
        gone.unlink()
        assert evaluate(bare, "gini") == 0
        assert "1 x read_error" in capsys.readouterr().out
        rows = heatlas.open(bare).to_pandas(["id", "status", "gini"])
        assert list(rows.loc[rows["gini"].isna(), "id"]) == [BAD, "cat/002.png"]
        assert rows.loc[rows["id"] == "cat/002.png", "status"].item() == "ok", "its map is still there"
    finally:
        gone.write_bytes(data)
    assert evaluate(bare, "gini") == 0
    assert heatlas.open(bare).to_pandas(["gini"])["gini"].isna().sum() == 2, "a complete evaluation stays as it is"
    assert evaluate(bare, "gini", more=("--retry-errors",)) == 0
    assert heatlas.open(bare).to_pandas(["gini"])["gini"].isna().sum() == 1


def test_added_columns_are_columns(calm: pathlib.Path):
    atlas = heatlas.open(calm)
    assert [name for name in atlas.schema.names if name in METRICS] == CHEAP
    own = [name for name in atlas.schema.names if name not in METRICS]
    assert own == read_part(str(calm), 0).column_names
    assert atlas.schema.names.index(CHEAP[0]) == own.index("map") + 1
    assert atlas.metadata["metrics"]["road"]["definition"] == "road/v1"
    table = atlas.table(["road", "id"], where="gini > 0 AND status = 'ok'")
    assert table.column_names == ["road", "id"]
    assert table.num_rows == COUNT - 1
    [(mean, rows)] = atlas.sql("SELECT avg(gini), count(*) FROM atlas").fetchall()
    assert rows == COUNT
    assert mean == pytest.approx(atlas.to_pandas(["gini"])["gini"].mean())
    assert atlas.sql("SELECT * FROM atlas LIMIT 1").columns == atlas.schema.names
    assert "road" in repr(atlas)


def test_part_files_say_what_they_hold(calm: pathlib.Path):
    [entry] = list_evaluations(str(calm))
    table = read_part(str(calm), 0, folder=entry.folder)
    assert table.column_names == ["id", "object_id", "target", "method", "uri", "status", "error", *CHEAP, "n_forwards", "seconds", "device"]  # fmt: skip
    facts = json.loads(table.schema.metadata[b"heatlas"])
    assert facts["metrics"]["insertion_auc"]["definition"] == "insertion_auc/v1"
    assert facts["evaluation"]["run"] == entry.fingerprint["run"]
    assert entry.fingerprint["batch_size"] == 8


def test_status_tells_of_it(calm: pathlib.Path, bare: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert main(["status", str(calm)]) == 0
    text = capsys.readouterr().out
    assert f"  added     {len(CHEAP)} metrics (ok {COUNT - 1})\n" in text
    assert re.search(rf"  gini +0\.\d+  \(mean of {COUNT - 1}\)", text)
    assert main(["status", str(calm), "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)["evaluations"]
    assert (record["complete"], record["shards"], record["rows"]) == (True, {"planned": 5, "done": 5}, COUNT - 1)
    assert record["forwards"] == row_totals(str(calm), folder=f"metrics/{record['name']}")["forwards"] > 0

    shutil.copytree(calm / "metrics", bare / "metrics")
    [begun] = (bare / "metrics").iterdir()
    (begun / "_SUCCESS").unlink()
    (begun / "part-000000.parquet").unlink()
    assert main(["status", str(bare)]) == 0
    text = capsys.readouterr().out
    assert "4 of 5 shards, not complete" in text
    assert f"  resume    heatlas evaluate with --metrics {' '.join(CHEAP)}\n" in text


def test_python_entry_is_the_same(bare: pathlib.Path, calm: pathlib.Path):
    result = heatlas.evaluate_store(bare, metrics=CHEAP, workers=0)
    assert digests(bare) == digests(calm)
    assert result.shards_done == 5
    assert result.metrics["gini"] == pytest.approx(result.open().to_pandas(["gini"])["gini"].mean())
