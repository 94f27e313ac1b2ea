"""One number per fact: terminal, summary, notebook and report give the same value, recomputed here from the store's rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import heatlas
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.report.build import totals
from heatlas.pipeline.report.classes import class_facts, suspicion_rule
from heatlas.pipeline.report.rows import ReportRows
from heatlas.pipeline.report.scores import run_scores
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.samples import Row, Sample

IMAGES = 9
METRICS = ("ebpg", "drop_pct")


def write_store(out: Path, targets: int) -> Path:
    """Images whose rows explain `targets` classes each; every third prediction is among none of them."""
    facts = {name: {"definition": f"{name}/v1", "unit": "1", "better": "higher"} for name in METRICS}
    layout = StoreLayout(
        (4, 4), metrics=METRICS, with_map=False, with_png=False, metadata={"metrics": facts, "class_names": ["ant", "<bee>"]}
    )  # fmt: skip
    claim_run(str(out), {"plan": {"samples": IMAGES, "shards": 3}}, {"seed": 0})
    for shard in plan_shards(IMAGES, 3):
        rows = []
        for place in range(shard.start, shard.stop):
            sample = Sample(f"img-{place}", "/x.png", place % 2)
            for target in range(targets):
                values = {"ebpg": (place + 10 * target) / 97, "drop_pct": None if place == 4 else place * 3.17 + target}
                rows.append(
                    Row(sample, "ok", prediction=targets - 1 if place % 3 else 7, target=target, metrics=values)
                )
        assert ParquetSink(str(out), layout).commit(shard, rows)
    return out


def chosen_rows(out: Path) -> list[Any]:
    """One row per image."""
    frame = heatlas.open(out).to_pandas(["id", "label", "target", "prediction", *METRICS], names=False)
    chosen = []
    for _, rows in frame.groupby("id"):
        own = rows[rows["target"] == rows["prediction"]]
        chosen.append((own if len(own) else rows.sort_values("target")).iloc[0])
    return chosen


def expected(out: Path) -> dict[str, tuple[float, int]]:
    """Mean and number of images per metric, by the rule in words: the predicted class's row, else the lowest target's."""
    chosen = chosen_rows(out)
    return {
        name: (sum(values) / len(values), len(values))
        for name in METRICS
        if (values := [row[name] for row in chosen if row[name] == row[name]])
    }


@pytest.mark.parametrize("targets", [1, 2])
def test_every_printed_mean_is_that_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str], targets: int):
    out = write_store(tmp_path / "out", targets)
    wanted = expected(out)
    summary = {row["metric"]: (row["mean"], row["n"]) for row in heatlas.open(out).summary(resamples=2).to_pylist()}
    report = {name: (row["mean"], row["n"]) for name, row in run_scores(ReportRows.of(heatlas.open(out))).items()}
    for name, (mean, count) in wanted.items():
        assert summary[name] == (pytest.approx(mean), count)
        assert report[name] == (pytest.approx(mean), count)
    capsys.readouterr()
    assert main(["summary", str(out), "--resamples", "2"]) == 0
    printed = capsys.readouterr().out
    html = heatlas.open(out)._repr_html_()
    for name, (mean, count) in wanted.items():
        row = re.search(rf"^  {name} +\w+ +(\d+) +([\d.]+)", printed, re.MULTILINE)
        assert row is not None
        assert (int(row[1]), float(row[2])) == (count, pytest.approx(mean, rel=1e-3))
        assert f"<td>{name}</td><td>{mean:.4g}</td><td>{count}</td>" in html
    assert main(["status", str(out)]) == 0
    status = capsys.readouterr().out
    frame = heatlas.open(out).to_pandas(list(METRICS))
    for name in METRICS:
        line = next(line for line in status.splitlines() if line.strip().startswith(name))
        assert f"{frame[name].mean():.4g}  (mean of {int(frame[name].count())}" in line
        assert ("all targets" in line) == (targets > 1)
        if targets == 1:
            assert f"{wanted[name][0]:.4g}  (mean of {wanted[name][1]})" in line


@pytest.mark.parametrize("targets", [1, 2])
def test_counts_of_correct_and_off_object_predictions_are_those_of_the_rows(tmp_path: Path, targets: int):
    out = write_store(tmp_path / "out", targets)
    images, rows = chosen_rows(out), ReportRows.of(heatlas.open(out))
    right = [row for row in images if row["prediction"] == row["label"]]
    counts = totals(rows)
    assert (counts["images"], counts["right"], counts["answered"]) == (IMAGES, len(right), IMAGES)
    assert counts["accuracy"] == pytest.approx(len(right) / IMAGES)
    rule = suspicion_rule(rows, run_scores(rows))
    assert rule is not None
    facts = class_facts(rows, rule)
    assert sum(each.images for each in facts) == IMAGES
    for each in facts:
        own = [row for row in images if row["label"] == each.index]
        correct = [row for row in own if row["prediction"] == each.index]
        off_object = [row for row in correct if row["ebpg"] < rule.threshold]
        assert (each.images, each.right, each.answered) == (len(own), len(correct), len(own))
        assert (each.suspicious, each.of) == (len(off_object), len(correct))
        assert each.accuracy == pytest.approx(len(correct) / len(own))
        assert each.means["ebpg"] == pytest.approx(sum(row["ebpg"] for row in own) / len(own))


def test_a_status_counts_every_row(tmp_path: Path):
    out = write_store(tmp_path / "out", 2)
    status, frame = heatlas.open(out).status(), heatlas.open(out).to_pandas(["id", "status", *METRICS])
    assert (status.rows, status.samples_done, status.samples) == (len(frame), frame["id"].nunique(), IMAGES)
    assert status.statuses == frame["status"].value_counts().to_dict()
    for name in METRICS:
        assert status.metrics[name].mean == pytest.approx(frame[name].mean())
        assert status.metrics[name].count == frame[name].count()


def test_class_names_stand_beside_indices(tmp_path: Path):
    atlas = heatlas.open(write_store(tmp_path / "out", 2))
    frame = atlas.to_pandas(["id", "label", "prediction", "target"])
    assert list(frame.columns) == [
        "id",
        "label",
        "label_name",
        "prediction",
        "prediction_name",
        "target",
        "target_name",
    ]
    assert set(frame["target_name"]) == {"ant", "<bee>"}
    assert set(frame["prediction_name"]) == {"<bee>", "class 7"}
    assert list(atlas.to_pandas(["id", "label"], names=False).columns) == ["id", "label"]


def test_sql_names_any_class(tmp_path: Path):
    atlas = heatlas.open(write_store(tmp_path / "out", 2))
    rows = atlas.sql("SELECT DISTINCT target, class_name(target) FROM atlas ORDER BY 1").fetchall()
    assert rows == [(0, "ant"), (1, "<bee>")]
    assert atlas.sql("SELECT class_name(7)").fetchall() == [(None,)]
