"""`atlas.summary()` and `heatlas summary`: which numbers, which average, what is said of chance baselines and of the sanity check."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.atlas import open_atlas
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.statistics.summary_text import sanity_sentence

from ..support.scored_store import write_scores

DROPS = [10.0, 20.0, None, 40.0, 50.0, 60.0]
EBPG = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
CHANCE_MAPS = {
    0: {"random": {"drop_pct": 90.0, "ebpg": 0.05}, "gaussian": {"drop_pct": 5.0, "ebpg": None}},
    4: {"random": {"drop_pct": 70.0, "ebpg": 0.15}, "gaussian": {"drop_pct": 15.0, "ebpg": 0.9}},
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "out", {"drop_pct": DROPS, "ebpg": EBPG}, chance=CHANCE_MAPS, failed=[5])


def rows(out: Path, by: str | None = None) -> dict[tuple[str | None, str], dict]:
    return {(row["group"], row["metric"]): row for row in open_atlas(out).summary(by).to_pylist()}


def test_means_over_images_that_have_a_value(out: Path):
    result = rows(out)
    drop, ebpg = result[None, "drop_pct"], result[None, "ebpg"]
    assert (drop["n"], drop["mean"], drop["rows"]) == (4, 30.0, 6)
    assert (ebpg["n"], ebpg["mean"]) == (5, pytest.approx(0.3))
    assert (drop["definition"], drop["unit"], drop["better"]) == ("drop_pct/v1", "1", "lower")
    assert 10 <= drop["low"] < 30 < drop["high"] <= 50


def test_chance_maps_stand_beside_the_score_on_the_same_images(out: Path):
    drop, ebpg = rows(out)[None, "drop_pct"], rows(out)[None, "ebpg"]
    assert (drop["chance_n"], drop["chance_own"], drop["random"], drop["gaussian"]) == (2, 30.0, 80.0, 10.0)
    assert ebpg["chance_own"] == pytest.approx(0.3)
    assert (ebpg["random"], ebpg["gaussian"]) == (pytest.approx(0.1), 0.9)
    assert 70 <= drop["random_low"] <= drop["random_high"] <= 90
    assert ebpg["gaussian_low"] is None, "one image has no interval"


def test_by_class(out: Path):
    result = rows(out, "class")
    assert {group for group, _ in result} == {"ant", "bee"}
    assert result["ant", "drop_pct"]["mean"] == 30.0
    assert result["bee", "drop_pct"]["mean"] == 30.0
    assert (result["bee", "ebpg"]["n"], result["bee", "ebpg"]["rows"]) == (2, 3)


def test_by_status_and_prediction(out: Path):
    result = rows(out, "status")
    assert result["ok", "drop_pct"]["rows"] == 5
    assert result["decode_error", "drop_pct"]["mean"] is None
    assert {group for group, _ in rows(out, "prediction")} == {"bee", "(none)"}


def test_summary_does_not_depend_on_shards(tmp_path: Path):
    values = np.random.default_rng(0).random((2, 40))
    scores = {"drop_pct": values[0].tolist(), "ebpg": values[1].tolist()}
    tables = [
        open_atlas(write_scores(tmp_path / str(size), scores, shard_size=size)).summary("class").to_pylist()
        for size in (1, 7, 40)
    ]
    for table in tables[1:]:
        for entry, two in zip(tables[0], table, strict=True):
            assert entry["group"] == two["group"]
            assert [two[key] for key in ("mean", "low", "high")] == pytest.approx(
                [entry[key] for key in ("mean", "low", "high")]
            )


def test_a_store_without_chance_baselines_or_metrics(tmp_path: Path):
    plain = rows(write_scores(tmp_path / "plain", {"drop_pct": DROPS}))
    assert plain[None, "drop_pct"]["chance_n"] is None
    failed = rows(write_scores(tmp_path / "failed", {"drop_pct": DROPS}, failed=range(6)))
    assert (failed[None, "drop_pct"]["n"], failed[None, "drop_pct"]["mean"]) == (0, None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"by": "clas"}, "cannot split by 'clas'; did you mean 'class'?; choose class, prediction, status"),
        ({"resamples": 0}, "resamples must be at least 1, got 0; leave it out for 1000"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_refusals(out: Path, options: dict, text: str):
    with pytest.raises(UsageError) as error:
        open_atlas(out).summary(**options)
    assert text in str(error.value)


def test_no_labels_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = write_scores(tmp_path / "out", {"drop_pct": DROPS}, labels=[None] * 6)
    assert main(["summary", str(out), "--by", "class"]) == 2
    err = capsys.readouterr().err
    assert "has a label, so it cannot be split by class; choose prediction, status" in err


def test_text_says_what_it_prints(out: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["summary", str(out)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == f"{out}: 6 rows (ok 5, decode_error 1)"
    assert lines[1].split() == ["metric", "better", "n", "mean", "images", "own", "random", "gaussian"]
    drop = lines[2].split()
    assert drop[:4] == ["drop_pct", "lower", "4", "30"]
    assert drop[-4:] == ["2", "30", "80", "10"]
    assert "Each mean is over the n images that have a value" in printed
    assert "95 % bootstrap interval (1000 resamples of images, seed 0)" in printed
    assert "Against a random map on 2 images: better in all 2 metrics that have a direction." in printed
    assert "Against a centred Gaussian on 2 images: no better in drop_pct, ebpg." in printed


def test_text_by_class_names_every_group(out: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["summary", str(out), "--by", "class", "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "\nant: 3 rows\n" in printed
    assert "\nbee: 3 rows\n" in printed
    assert "50 resamples" in printed


def test_json(out: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["summary", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in result] == ["drop_pct", "ebpg"]
    assert result[0]["random"] == 80.0


def test_nothing_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = write_scores(tmp_path / "out", {"drop_pct": DROPS}, failed=range(6))
    assert main(["summary", str(out)]) == 0
    assert "no row has a metric" in capsys.readouterr().out


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["summary", str(tmp_path)]) == 2
    assert "is not a heatlas store" in capsys.readouterr().err


def test_the_sanity_check_is_a_plain_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scores = {"drop_pct": DROPS, "random_model_spearman": [0.1, None, None, 0.2, None, None]}
    assert main(["summary", str(write_scores(tmp_path / "out", scores))]) == 0
    wanted = "Sanity check: maps change when the weights are randomised: mean rank correlation 0.15 on 2 images"
    assert wanted in capsys.readouterr().out
    assert "hardly change when the weights are randomised, so they may show the image's edges" in sanity_sentence(
        0.8, 4
    )


def test_every_reader_opens_chance_baselines_as_nested_values(out: Path, tmp_path: Path):
    import duckdb
    import pandas as pd
    import polars as pl
    from datasets import load_dataset

    parts = str(out / "maps" / "part-*.parquet")
    wanted = CHANCE_MAPS[0]["random"]
    frame = pd.read_parquet(out / "maps").set_index("id")
    assert frame.loc["img-0000", "floors"]["random"] == wanted
    assert frame.loc["img-0001", "floors"] is None
    rows = pl.read_parquet(parts).select(pl.col("floors").struct.field("random").struct.field("drop_pct"))
    assert rows["drop_pct"].drop_nulls().to_list() == [90.0, 70.0]
    assert duckdb.sql(f"SELECT avg(floors.random.drop_pct) FROM '{parts}'").fetchall() == [(80.0,)]
    loaded = load_dataset("parquet", data_files=parts, split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["floors"]["random"] for row in loaded if row["id"] == "img-0000"] == [wanted]
