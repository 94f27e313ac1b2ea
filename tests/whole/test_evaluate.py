"""`heatlas evaluate`: metrics for a store that is there, equal to those of a run that had computed them at once."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import signal
import subprocess

import heatlas
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from heatlas.engine.metrics import METRICS
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.committed_shards import done_shards, read_part, row_totals
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.evaluations import list_evaluations

from ..support.tiny_run import FACTORY, command, draw, draw_all, environment, importable_factory, program, wait_until

COUNT = 13
BAD = "bee/004.png"
DEAR = ("coherency", "adcc", "max_sensitivity")
CHEAP = [name for name, metric in METRICS.items() if not metric.layers and name not in DEAR and not metric.dense]
FULL_SIZE = ("--store.map-size", "input", "--store.no-map-png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Images, one of them broken, with boxes for half of them; a run without metrics and one with all of them."""
    with importable_factory(tmp_path_factory.mktemp("evaluate")) as folder:
        draw_all(folder / "images", COUNT)
        (folder / "images" / BAD).write_text("not yet uploaded")
        names = sorted(path.relative_to(folder) for path in (folder / "images").rglob("*.png"))
        lines = [{"id": str(name.relative_to("images")), "uri": str(folder / name), "label": number % 3,
                  **({"boxes": [[4 + number, 6, 16 + number, 18]]} if number % 2 else {})} for number, name in enumerate(names)]  # fmt: skip
        (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert explain(folder, folder / "bare", "--metrics", "none") == 0
        assert explain(folder, folder / "whole", "--metrics", *CHEAP, *DEAR) == 0
        yield folder


@pytest.fixture
def bare(folder: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A store of one's own to add metrics to."""
    shutil.copytree(folder / "bare", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def calm(folder: pathlib.Path) -> pathlib.Path:
    """The bare store with the cheap metrics added, undisturbed."""
    out = folder / "calm"
    shutil.copytree(folder / "bare", out)
    assert evaluate(out, *CHEAP) == 0
    return out


def explain(folder: pathlib.Path, out: pathlib.Path, *more: str) -> int:
    return main(command(folder / "data.jsonl", out, *FULL_SIZE, "--chance-maps", "0", *more))


def evaluate(out: pathlib.Path, *metrics: str, workers: int = 0, more: tuple[str, ...] = ()) -> int:
    return main(["evaluate", str(out), "--metrics", *metrics, "--workers", str(workers), *more])


def digests(out: pathlib.Path) -> dict[str, str]:
    """What was added, by name."""
    return {evaluation.name: logical_digest(str(out), evaluation.folder) for evaluation in list_evaluations(str(out))}


def parts(out: pathlib.Path) -> dict[str, tuple[int, int]]:
    result = (out / "metrics").rglob("part-*.parquet")
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in result}


def span(name: str) -> float:
    low, high = METRICS[name].range
    return high - low if np.isfinite([low, high]).all() else 1.0


# values


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


# like a run


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


# what is shown


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
    assert table.column_names == ["id", "target", "method", "uri", "status", "error", *CHEAP, "n_forwards", "seconds", "device"]  # fmt: skip
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


# what cannot work


@pytest.mark.parametrize(
    ("asked", "texts"),
    [
        (["ginni"], ["unknown metric 'ginni'; did you mean 'gini'?"]),
        (["layer_agreement"], ["layer_agreement compares the maps of the block layers", "--metrics layer_agreement", "another --out"]),
        (["none"], ["--metrics none would add nothing"]),
        ([","], ["no metric is asked for; give presets (paper, standard, full, dense)"]),
        (["gini", "--batch-size", "3"], ["does not take --batch-size"]),
        (["gini", "--device", "tpu"], ["setting device = 'tpu' is not allowed"]),
        (["gini", "--max-error-rate", "0"], ["max_error_rate"]),
    ],
)  # fmt: skip
def test_misuse_is_told_before_anything_is_written(
    asked: list[str], texts: list[str], bare: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["evaluate", str(bare), "--workers", "0", "--metrics", *asked]) == 2
    printed, told = capsys.readouterr()
    assert told.startswith("heatlas: error: ")
    assert all(text in told for text in texts), told
    assert printed == ""
    assert not (bare / "metrics").exists()


def test_settings_of_the_run_cannot_be_changed_from_python(bare: pathlib.Path):
    with pytest.raises(
        heatlas.HeatlasError, match=r"cannot set 'batch_size': it is the run's, .*: 8; it can set workers, device"
    ):
        heatlas.evaluate_store(bare, metrics="gini", workers=0, batch_size=3)
    with pytest.raises(
        heatlas.HeatlasError, match=r"cannot set 'worker': there is no such setting; did you mean 'workers'\?"
    ):
        heatlas.evaluate_store(bare, metrics="gini", worker=0)


def test_of_reduced_maps_only_what_reads_the_map_alone_is_added_under_names_of_its_own(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert (
        main(command(folder / "data.jsonl", out, "--metrics", "none", "--chance-maps", "0", "--store.map-size", "12"))
        == 0
    )
    assert evaluate(out, "insertion_auc") == 2
    assert "insertion_auc needs the whole map, and the stored ones are reduced (map12)" in capsys.readouterr().err
    assert evaluate(out, "ebpg@map56") == 2
    assert "ebpg@map56 is a metric of maps of another size, and the stored ones are map12's" in capsys.readouterr().err
    assert not (out / "metrics").exists()
    assert evaluate(out, "standard") == 0
    told = capsys.readouterr().err
    assert re.search(r"note: .*drop_pct.*: left out, because the stored maps are reduced", told)
    atlas, whole = heatlas.open(out), heatlas.open(folder / "whole")
    facts = atlas.metadata["metrics"]["ebpg@map12"]
    assert facts["definition"] == "ebpg@map12/v1"
    assert "its longer side 12 pixels, enlarged bilinearly" in facts["formula"]
    assert "ebpg" not in atlas.schema.names
    added, at_once = atlas.to_pandas(), whole.to_pandas()
    for row, (_, image) in enumerate(added.iterrows()):
        if image["status"] == "ok":
            stored = torch.from_numpy(atlas.maps([image["id"]]))[:, None]
            larger = F.interpolate(stored, (24, 24), mode="bilinear", align_corners=False)[0, 0]
            assert image["gini@map12"] == pytest.approx(float(heatlas_gini(larger)), abs=1e-6)
            if np.isnan(at_once["ebpg"][row]):
                assert np.isnan(image["ebpg@map12"])
            else:
                assert image["ebpg@map12"] == pytest.approx(at_once["ebpg"][row], abs=0.15)
    assert atlas.sql('SELECT count("ebpg@map12") FROM atlas').fetchall()[0][0] == at_once["ebpg"].notna().sum()
    assert {"ebpg@map12", "gini@map12"} <= {row["metric"] for row in atlas.summary(resamples=2).to_pylist()}
    assert evaluate(out, "ebpg@map12", "gini") == 0
    assert len(list_evaluations(str(out))) == 1
    assert main(["verify", str(out)]) == 0
    assert main(["report", str(out), "--out", str(tmp_path / "r.html")]) == 0


def heatlas_gini(map_: torch.Tensor) -> float:
    """Gini index of the pixels, by its definition over sorted values."""
    values = map_.flatten().double().sort().values
    ranks = torch.arange(1, len(values) + 1, dtype=torch.float64)
    return float((2 * (ranks * values).sum() / (len(values) * values.sum())) - (len(values) + 1) / len(values))


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (["--store.no-map"], "stored no maps as numbers: metrics need the whole map, and the 8-bit PNG"),
        (["--store.no-map", "--store.no-map-png"], "stored no maps as numbers: metrics need the whole map; explain"),
    ],
)  # fmt: skip
def test_stores_without_maps_are_refused(
    stored: list[str], text: str, folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert (
        main(command(folder / "data.jsonl", out, "--metrics", "none", "--chance-maps", "0", "--limit", "2", *stored))
        == 0
    )
    capsys.readouterr()
    assert evaluate(out, "gini") == 2
    told = capsys.readouterr().err
    assert text in told
    assert "explain the data anew with --store.map-size input into another --out" in told
    assert not (out / "metrics").exists()


def test_a_map_size_beyond_the_input_is_whole_too(folder: pathlib.Path, tmp_path: pathlib.Path):
    out = tmp_path / "out"
    more = ("--metrics", "none", "--chance-maps", "0", "--limit", "3", "--store.map-size", "56")
    assert main(command(folder / "data.jsonl", out, *more)) == 0
    assert evaluate(out, "gini") == 0
    assert heatlas.open(out).to_pandas(["gini"])["gini"].notna().all()


def test_no_run_is_told(folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate(folder / "images", "gini") == 2
    assert "is not a heatlas store: it has no _run.json" in capsys.readouterr().err
    assert evaluate(tmp_path / "nowhere", "gini") == 2
    assert "is not a heatlas store" in capsys.readouterr().err


def test_other_weights_are_refused(folder: pathlib.Path, bare: pathlib.Path):
    """In a process of its own, because a module is imported once."""
    other = bare.parent / "other"
    other.mkdir()
    (other / "tiny_net.py").write_text(FACTORY.replace("manual_seed(0)", "manual_seed(1)"))
    argv = program("evaluate", str(bare), "--metrics", "gini", "--workers", "0")
    done = subprocess.run(argv, env=environment(other), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "were made from something else than there is now" in done.stderr
    assert "model.digest: stored" in done.stderr
    assert "preprocess" not in done.stderr
    assert not (bare / "metrics").exists()


def test_another_data_set_is_refused(folder: pathlib.Path, bare: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    listing = folder / "data.jsonl"
    lines = listing.read_text()
    try:
        listing.write_text("".join(lines.splitlines(keepends=True)[1:]))
        assert evaluate(bare, "gini") == 2
        assert f"plan.samples: stored {COUNT}, now {COUNT - 1}" in capsys.readouterr().err
        listing.unlink()
        assert evaluate(bare, "gini") == 2
        assert "call from the folder where it was started" in capsys.readouterr().err
    finally:
        listing.write_text(lines)
    assert not (bare / "metrics").exists()


def test_another_meaning_of_a_column_is_refused(bare: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate(bare, "gini") == 0
    [claim] = (bare / "metrics").glob("*/_evaluation.json")
    claim.write_text(claim.read_text().replace("gini/v1", "gini/v0"))
    capsys.readouterr()
    assert evaluate(bare, "gini") == 2
    assert "the store holds gini/v0, this heatlas computes gini/v1" in capsys.readouterr().err


def test_half_a_column_is_not_completed_with_other_versions(bare: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate(bare, "gini") == 0
    [place] = (bare / "metrics").iterdir()
    (place / "_SUCCESS").unlink()
    (place / "part-000001.parquet").unlink()
    claim = place / "_evaluation.json"
    claim.write_text(re.sub(r'"torch": ".*"', '"torch": "1.0"', claim.read_text()))
    capsys.readouterr()
    assert evaluate(bare, "gini") == 2
    told = capsys.readouterr().err
    assert 'versions.torch: stored "1.0", now' in told
    assert f"delete {bare}/metrics/{place.name}" in told


def test_a_damaged_claim_is_told(bare: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate(bare, "gini") == 0
    [claim] = (bare / "metrics").glob("*/_evaluation.json")
    claim.write_text("{")
    for argv in (["status", str(bare)], ["evaluate", str(bare), "--metrics", "gini"]):
        capsys.readouterr()
        assert main(argv) == 1
        assert "_evaluation.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["id", "map"])
def test_a_damaged_part_of_the_store_fails_its_shard_only(
    column: str, bare: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    part = bare / "maps" / "part-000001.parquet"
    data = bytearray(part.read_bytes())
    group = pq.ParquetFile(part).metadata.row_group(0)
    [chunk] = [
        entry for entry in map(group.column, range(group.num_columns)) if entry.path_in_schema.split(".")[0] == column
    ]
    start = chunk.data_page_offset if chunk.dictionary_page_offset is None else chunk.dictionary_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    part.write_bytes(data)
    assert evaluate(bare, "gini", more=("--shard-retries", "1")) == 1
    told = capsys.readouterr().err
    assert "1 shard of" in told
    assert "part-000001.parquet" in told
    assert "Traceback" not in told
    [entry] = list_evaluations(str(bare))
    assert sorted(done_shards(str(bare), entry.folder)) == [0, 2, 3, 4]
