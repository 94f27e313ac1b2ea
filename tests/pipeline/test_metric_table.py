"""`heatlas metrics`: what the user sees."""

from __future__ import annotations

import json

import pytest
from heatlas.engine.metrics import METRIC_PRESETS, METRICS
from heatlas.pipeline.cli.app import main


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["metrics", *options]) == 0
    return capsys.readouterr().out


def test_every_metric_has_a_line_with_its_definition(capsys: pytest.CaptureFixture[str]):
    lines = printed(capsys).splitlines()
    assert lines[0].split() == ["metric", "unit", "range", "better", "needs", "forwards", "explanations", "preset"]
    first = {line.split()[0]: line for line in lines[1 : len(METRICS) + 2]}
    assert set(first) == {metric.definition for metric in METRICS.values()} | {"random_model_spearman/v1"}
    assert first["drop_pct/v1"].split()[1:] == ["%", "0", "to", "100", "lower", "model", "2", "0", "paper"]
    assert first["max_sensitivity/v1"].split()[-3:] == ["0", "10", "full"]
    assert first["random_model_spearman/v1"].endswith("1             --sanity N")


def test_names_one_a_line(capsys: pytest.CaptureFixture[str]):
    assert printed(capsys, "--names").splitlines() == [*METRICS, "random_model_spearman"]


def test_json_has_everything(capsys: pytest.CaptureFixture[str]):
    result = {row["name"]: row for row in json.loads(printed(capsys, "--json"))}
    assert list(result) == [*METRICS, "random_model_spearman"]
    for name, metric in METRICS.items():
        assert (result[name]["definition"], result[name]["formula"]) == (metric.definition, metric.formula)
        assert result[name]["presets"] == [preset for preset, names in METRIC_PRESETS.items() if name in names]
    assert result["insertion_auc"]["forwards"] == 21
    assert result["entropy"]["range"] == [0.0, "inf"]
    assert result["random_model_spearman"]["setting"] == "sanity"
    assert json.loads(printed(capsys, "--json", "--names")) == list(result)
