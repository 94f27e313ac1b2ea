"""What `heatlas evaluate` refuses, before anything is written."""

from __future__ import annotations

import pathlib
import re
import subprocess

import heatlas
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.evaluations import list_evaluations

from ...support.evaluate_run import COUNT, evaluate
from ...support.tiny_run import FACTORY, command, environment, program


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
