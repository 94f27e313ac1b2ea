"""Comparisons where people decided which images carry a mark: those images do not vote."""

from __future__ import annotations

import json
import shutil

import heatlas
import numpy as np
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.compare.compare import compare_runs
from heatlas.pipeline.compare.text import comparison_text
from heatlas.pipeline.compare.verdict import verdict_text

from ..support.marked_set import MODULE


@pytest.fixture(scope="module")
def other(planted, tmp_path_factory):
    """A store of the second seed over the same images."""
    out = str(tmp_path_factory.mktemp("other") / "store")
    heatlas.explain_dataset(
        model=f"{MODULE}:model@{planted.weights[1]}", data=str(planted.manifest), out=out, workers=0, method="grad_cam", metrics=["none"],
        chance_maps=0, store={"map_size": 6},
    )  # fmt: skip
    return out


def test_accuracies_by_marks_are_those_of_the_rows(planted, other):
    comparison = compare_runs(planted.store, other)
    marked = {decision.id for decision in heatlas.open(planted.store).decisions().current}
    groups = {group.name: group for group in comparison.decided}
    assert set(groups) == {"with a mark", "without a mark"}
    for place, store in enumerate((planted.store, other)):
        rows = heatlas.open(store).table(["id", "label", "prediction"]).to_pylist()
        for name, group in groups.items():
            own = [
                row["label"] == row["prediction"] for row in rows if (row["id"] in marked) == (name == "with a mark")
            ]
            assert group.images == len(own)
            assert group.accuracy[place] == pytest.approx(np.mean(own))
    assert "with a mark: accuracy" in comparison_text(comparison)
    assert "`heatlas verdict`" in comparison_text(comparison)


def test_the_sentence_is_about_images_without_a_mark(planted, other, tmp_path):
    text = verdict_text(compare_runs(planted.store, other))
    assert text.startswith("On images without a mark ")
    assert "108 images with a mark left aside" in text
    bare = str(shutil.copytree(planted.store, tmp_path / "bare", ignore=shutil.ignore_patterns("decisions")))
    comparison = compare_runs(bare, other)
    assert comparison.decided == []
    assert "without a mark" not in verdict_text(comparison) + comparison_text(comparison)


def test_decided_labels_count_where_somebody_decided(planted, other, tmp_path):
    store = str(shutil.copytree(planted.store, tmp_path / "store"))
    ids = [f"test-{number:04d}" for number in range(1, 31, 3)]
    heatlas.open(store).decide(ids, "relabel", label_name="upright")
    [group] = [group for group in compare_runs(store, other).decided if group.name == "labels decided anew"]
    predictions = dict(zip(*heatlas.open(store).table(["id", "prediction"]).to_pydict().values(), strict=True))
    assert group.images == 10
    assert group.right[0] == sum(predictions[identity] == 2 for identity in ids)


def test_the_command_judges_where_it_is_asked_to(planted, other, capsys):
    assert main(["compare", planted.store, other, "--verdict", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {group["group"] for group in said["predictions"]["decided"]} == {"with a mark", "without a mark"}
    assert said["verdict"]["images"] == 120
    assert any("fewer than 3 models" in note for note in said["verdict"]["notes"])
    assert main(["compare", planted.store, other, "--verdict"]) == 0
    assert "reliance on the mark of rising" in capsys.readouterr().out
