"""Several targets per image, from the command to every reader of the store."""

from __future__ import annotations

import json
import pathlib
import shutil

import heatlas
import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.content_digest import logical_digest

from ..support.tiny_run import command, draw, draw_all, importable_factory

COUNT = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    with importable_factory(tmp_path_factory.mktemp("targets")) as folder:
        draw_all(folder / "images", COUNT)
        assert main(command(folder / "images", folder / "plain")) == 0
        assert main(command(folder / "images", folder / "both", "--target", "both", "--store.map-size", "input")) == 0
        yield folder


def frame(out: pathlib.Path):
    return heatlas.open(out).to_pandas(
        ["id", "label", "prediction", "target", "status", "confidence", "n_forwards", "drop_pct"]
    )


def test_both_has_the_rows_of_either(folder: pathlib.Path, tmp_path: pathlib.Path):
    assert main(command(folder / "images", tmp_path / "label", "--target", "label")) == 0
    both, plain, label = frame(folder / "both"), frame(folder / "plain"), frame(tmp_path / "label")
    assert (plain["target"] == plain["prediction"]).all()
    assert (label["target"] == label["label"]).all()
    differ = int((plain["prediction"] != plain["label"]).sum())
    assert 0 < differ < COUNT
    assert len(both) == COUNT + differ
    for single in (plain, label):
        merged = single.merge(both, on=["id", "target"], suffixes=("", "_both"))
        assert len(merged) == COUNT
        assert (merged["confidence"] == merged["confidence_both"]).all()
        assert (merged["drop_pct"].fillna(-1) == merged["drop_pct_both"].fillna(-1)).all()
        asked = merged["n_forwards_both"] - merged["n_forwards"]
        assert set(asked) <= {0, 1}


def test_the_content_does_not_depend_on_workers(folder: pathlib.Path, tmp_path: pathlib.Path, local_ray: None):
    argv = command(
        folder / "images", tmp_path / "out", "--target", "both", "--store.map-size", "input", "--workers", "2"
    )
    assert main(argv) == 0
    assert logical_digest(str(tmp_path / "out")) == logical_digest(str(folder / "both"))


def test_status_and_verify_count_samples_and_rows(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    out, rows = folder / "both", len(frame(folder / "both"))
    assert main(["verify", str(out)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert main(["status", str(out)]) == 0
    assert f"  rows      {rows}, of {COUNT} of {COUNT} samples\n" in capsys.readouterr().out
    assert main(["status", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["rows"], result["samples_done"], result["samples"]) == (rows, COUNT, COUNT)
    assert main(command(folder / "images", out, "--target", "both", "--store.map-size", "input")) == 0
    assert "was complete already" in capsys.readouterr().out


def test_maps_and_pictures_of_each_target(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    atlas, rows = heatlas.open(folder / "both"), frame(folder / "both")
    twice = rows[rows.duplicated("id")].iloc[0]
    with pytest.raises(UsageError, match="have several rows, one per target or object; choose one with target=CLASS"):
        atlas.maps([twice["id"]])
    first, other = (atlas.maps([twice["id"]], target=int(twice[name])) for name in ("prediction", "label"))
    assert not np.array_equal(first, other)
    capsys.readouterr()
    assert main(["show", str(folder / "both"), "--id", twice["id"], "--out", str(tmp_path)]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert [name.rsplit("-", 1)[1] for name in names] == sorted(
        f"{twice[name]}.png" for name in ("prediction", "label")
    )
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_metrics_are_added_to_every_row(folder: pathlib.Path, tmp_path: pathlib.Path):
    out = tmp_path / "both"
    shutil.copytree(folder / "both", out)
    assert main(["evaluate", str(out), "--metrics", "increase,average_gain_pct", "--workers", "0"]) == 0
    added = heatlas.open(out).to_pandas(["id", "target", "confidence", "drop_pct", "average_gain_pct"])
    assert added["average_gain_pct"].notna().all()
    assert len(added) == len(frame(out))
    assert ((added["drop_pct"] > 0) <= (added["average_gain_pct"] == 0)).all(), "of the same target"
    assert main(["verify", str(out)]) == 0


def test_error_rows_of_several_targets_are_tried_again(folder: pathlib.Path, tmp_path: pathlib.Path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(folder / "images", images)
    broken = sorted(images.rglob("*.png"))[-1]
    number = int(broken.stem)
    broken.write_text("not yet uploaded")
    argv = command(images, out, "--target", "top:2", "--metrics", "none")
    assert main(argv) == 0
    assert len(frame_of(out)) == 2 * COUNT - 1
    draw(broken, number)
    capsys.readouterr()
    assert main([*argv, "--retry-errors"]) == 0
    printed, told = capsys.readouterr()
    assert "1 error row in 1 shard once more" in told
    assert "retried   1 error row, of which 1 ok now" in printed
    calm = tmp_path / "calm"
    assert main(command(folder / "images", calm, "--target", "top:2", "--metrics", "none")) == 0
    assert frame_of(out).equals(frame_of(calm))
    assert main(["verify", str(out)]) == 0


def frame_of(out: pathlib.Path):
    return heatlas.open(out).to_pandas(["id", "target", "status", "confidence", "n_forwards"])


def test_a_column_and_sigmoids(folder: pathlib.Path, tmp_path: pathlib.Path):
    files = sorted((folder / "images").rglob("*.png"))[:4]
    lines = [f"{path},{claim}" for path, claim in zip(files, ["2", '"0,1"', "", "7"], strict=True)]
    (tmp_path / "list.csv").write_text("uri,claim\n" + "\n".join(lines) + "\n")
    argv = command(
        tmp_path / "list.csv",
        tmp_path / "out",
        "--target",
        "column:claim",
        "--confidence",
        "sigmoid",
        "--metrics",
        "none",
    )
    assert main(argv) == 0
    rows = heatlas.open(tmp_path / "out").to_pandas(["target", "status", "confidence", "logit", "prediction"])
    assert sorted(rows["status"]) == ["label_error", "label_error", "ok", "ok", "ok"]
    fine = rows[rows["status"] == "ok"]
    assert sorted(fine["target"]) == [0, 1, 2]
    assert np.allclose(fine["confidence"], 1 / (1 + np.exp(-fine["logit"])), atol=1e-6)


def test_every_class_above_the_limit(folder: pathlib.Path, tmp_path: pathlib.Path):
    out = tmp_path / "out"
    assert main(command(folder / "images", out, "--target", "above:0.5", "--metrics", "none")) == 0
    rows = heatlas.open(out).to_pandas(["id", "target", "status", "confidence", "logit", "prediction", "error"])
    fine, none = rows[rows["status"] == "ok"], rows[rows["status"] == "no_target"]
    assert len(fine) + len(none) == len(rows)
    assert (fine["confidence"] > 0.5).all()
    assert np.allclose(fine["confidence"], 1 / (1 + np.exp(-fine["logit"])), atol=1e-6)
    assert none["prediction"].notna().all()
    run = json.loads((out / "_run.json").read_text())
    assert run["fingerprint"]["score"] == "sigmoid"
