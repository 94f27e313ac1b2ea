"""Chance baselines and the sanity check through the command: which images, what is stored, what is said; and resuming changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import heatlas
import pyarrow as pa
import pytest
from heatlas.errors import RunMismatchError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.explain.subsample import ALL, chosen_below
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import metric_columns
from heatlas.workers.worker.shard_attempt import seed_of
from hypothesis import given
from hypothesis import strategies as st

from ..support.tiny_run import command, draw_all, importable_factory

IMAGES = 9
SAMPLED = ("--chance-maps", "4", "--sanity", "2", "--metrics", "drop_pct,deletion_auc,coherency")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with importable_factory(tmp_path_factory.mktemp("chance_maps")) as folder:
        draw_all(folder / "images", IMAGES)
        yield folder


@pytest.fixture(scope="module")
def calm(folder: Path) -> Path:
    assert main(command(folder / "images", folder / "calm", *SAMPLED)) == 0
    return folder / "calm"


def chosen(ids: list[str], count: int) -> set[str]:
    return set(sorted(ids, key=seed_of)[:count])


def test_chance_maps_of_the_chosen_images_only(calm: Path):
    rows = heatlas.open(calm).table(["id", "floors", "random_model_spearman"]).to_pylist()
    ids = [row["id"] for row in rows]
    assert len(ids) == IMAGES
    assert {row["id"] for row in rows if row["floors"]} == chosen(ids, 4)
    with_sanity = {row["id"] for row in rows if row["random_model_spearman"] is not None}
    assert with_sanity <= chosen(ids, 2)
    assert with_sanity
    for row in rows:
        if row["floors"]:
            assert set(row["floors"]) == {"random", "gaussian"}
            for values in row["floors"].values():
                assert set(values) == {"drop_pct", "deletion_auc"}, "coherency needs a method"
                assert all(value is not None for value in values.values())


def test_chance_maps_are_in_no_mean_and_no_count(calm: Path):
    atlas = heatlas.open(calm)
    assert len(atlas) == IMAGES
    assert "floors" not in metric_columns(atlas.schema)
    [(own, random)] = atlas.sql(
        "SELECT avg(drop_pct), avg(floors.random.drop_pct) FROM atlas WHERE floors IS NOT NULL"
    ).fetchall()
    summary = {row["metric"]: row for row in atlas.summary().to_pylist()}
    assert (summary["drop_pct"]["n"], summary["drop_pct"]["chance_n"]) == (IMAGES, 4)
    assert (summary["drop_pct"]["chance_own"], summary["drop_pct"]["random"]) == pytest.approx((own, random))
    assert atlas.metadata["metrics"]["random_model_spearman"]["definition"] == "random_model_spearman/v1"


def test_the_closing_summary_says_it_in_plain_sentences(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(command(folder / "images", tmp_path / "out", *SAMPLED)) == 0
    printed = capsys.readouterr().out
    assert "Against a random map on 4 images: " in printed
    assert "Against a centred Gaussian on 4 images: " in printed
    assert "Sanity check: maps " in printed
    assert "mean rank correlation " in printed


def test_a_part_computed_again_has_the_same_rows(calm: Path, folder: Path, tmp_path: Path):
    out = tmp_path / "again"
    shutil.copytree(calm, out)
    (out / "_SUCCESS").unlink()
    (out / part_path(1)).unlink()
    assert main(command(folder / "images", out, *SAMPLED)) == 0
    assert logical_digest(str(out)) == logical_digest(str(calm))


def test_another_sample_is_another_run(calm: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(command(folder / "images", calm, *SAMPLED[:1], "5", *SAMPLED[2:])) == 2
    assert "floors: stored 4, now 5" in capsys.readouterr().err
    with pytest.raises(RunMismatchError, match="floors"):
        claim_run(str(calm), {}, {})


def test_none_wanted_none_stored(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(command(folder / "images", tmp_path / "out", "--chance-maps", "0", "--limit", "2")) == 0
    names = heatlas.open(tmp_path / "out").schema.names
    assert "floors" not in names
    assert "random_model_spearman" not in names
    assert "Against" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--chance-maps", "--sanity"])
def test_a_negative_number_is_refused(option: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(command(folder / "images", tmp_path / "out", option, "-1")) == 2
    assert (
        f"setting {option[2:].replace('-', '_')} = '-1' is not allowed: it must be a whole number of at least 0"
        in capsys.readouterr().err
    )


@given(st.sets(st.text(max_size=5), max_size=30), st.integers(0, 40), st.randoms())
def test_the_sample_depends_on_the_ids_alone(ids: set[str], count: int, shuffle):
    ordered = sorted(ids)
    shuffle.shuffle(ordered)
    limit = chosen_below(pa.table({"id": pa.array(ordered, pa.string())}), count)
    inside = {entry for entry in ordered if seed_of(entry) < limit}
    assert inside == chosen(ordered, count)
    assert limit <= ALL
