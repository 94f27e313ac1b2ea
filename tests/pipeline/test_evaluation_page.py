"""The evaluation's page: means over the same images, the best in bold, and a verdict where a paired test finds one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ..support.checkout import ROOT, checkout_module

COUNT = 40


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    return checkout_module("bench.accuracy.evaluation_page")


def record(ebpg: float, drop: float, status: str = "ok") -> dict:
    values = {"ebpg": ebpg, "drop_pct": drop, "spread": 0.1} if status == "ok" else {}
    return {"status": status, "forwards": 11, "backwards": 1, "values": values}


@pytest.fixture
def scores(pages: ModuleType):
    noise = np.random.default_rng(0).random((2, COUNT))
    ids = [f"img-{number}" for number in range(COUNT)]
    ours = {id_: record(0.5 + 0.1 * noise[0, place], 20.0 + noise[1, place]) for place, id_ in enumerate(ids)}
    theirs = {id_: record(0.3 + 0.1 * noise[1, place], 10.0 + noise[0, place]) for place, id_ in enumerate(ids)}
    theirs["img-3"] = record(0, 0, "constant_map")
    del theirs["img-5"]
    return pages.Scores(
        "Photographs", COUNT, {"SISE, mu = 0.5": ours, "Grad-CAM": theirs}, ids, {"SISE, mu = 0.5": 0.25}
    )


def test_means_are_over_the_images_with_a_map_and_the_others_are_counted(pages: ModuleType, scores):
    text = pages.section(scores)
    assert f"{COUNT} images." in text
    assert f"Grad-CAM: {COUNT - 1} of them only." in text
    assert "Grad-CAM gave 1 of them no map (constant_map 1)." in text
    assert f"| SISE, mu = 0.5 | {COUNT} | 11 | 1 | 0.25 |" in text
    assert f"| Grad-CAM | {COUNT - 2} | 11 | 1 | - |" in text
    mean = np.mean([scores.by_method["SISE, mu = 0.5"][entry]["values"]["ebpg"] for entry in scores.tried])
    assert f"**{mean:.4g} [" in text


def bold(pages: ModuleType, scores, metric: str) -> list[bool]:
    """Whether each method's cell is bold, in the table that has the metric's column."""
    lines = [[cell.strip() for cell in line.split("|")] for line in pages.section(scores).splitlines()]
    place, head = next(
        (number, cells) for number, cells in enumerate(lines) if any(f"`{metric}`" in cell for cell in cells[2:])
    )
    column = next(number for number, cell in enumerate(head) if f"`{metric}`" in cell)
    return [cells[column].startswith("**") for cells in lines[place + 2 : place + 4]]


def test_the_best_is_bold_where_an_end_is_better(pages: ModuleType, scores):
    kept = [entry for entry in scores.tried if entry not in ("img-3", "img-5")]
    whole = pages.Scores("Photographs", COUNT, scores.by_method, kept)
    assert bold(pages, whole, "ebpg") == [True, False]
    assert bold(pages, whole, "drop_pct") == [False, True]
    assert bold(pages, whole, "spread") == [False, False]


def test_a_method_that_leaves_images_out_is_not_the_best(pages: ModuleType, scores):
    assert bold(pages, scores, "drop_pct") == [True, False], "Grad-CAM's is lower, but over fewer images"
    tried = [entry for entry in scores.tried if entry != "img-3"]
    fewer = pages.Scores("Photographs", COUNT, scores.by_method, tried)
    assert bold(pages, fewer, "drop_pct") == [True, False], "one image was not tried"


def test_where_sise_does_not_win_is_said(pages: ModuleType, scores):
    assert pages.verdict(scores, "SISE, mu = 0.5", "Grad-CAM") == (
        "- **SISE, mu = 0.5** against Grad-CAM: better in `ebpg` (+1.00); **worse in** `drop_pct` (+1.00); no difference shown in none."
    )
    assert "no difference shown in `drop_pct` (+0.00), `ebpg` (+0.00)" in pages.verdict(scores, "Grad-CAM", "Grad-CAM")


def test_only_the_first_sise_is_compared_with_the_others(pages: ModuleType, scores):
    methods = scores.by_method
    three = {
        "sise": methods["SISE, mu = 0.5"],
        "sise:mu=0.3": methods["SISE, mu = 0.5"],
        "grad_cam": methods["Grad-CAM"],
    }
    lines = pages.section(pages.Scores("Photographs", COUNT, three, scores.ids)).splitlines()
    compared = [line.split("better in")[0] for line in lines if line.startswith("- **")]
    assert compared == ["- **sise** against sise:mu=0.3: ", "- **sise** against grad_cam: "]


def test_metrics_stand_by_what_they_ask_of(pages: ModuleType, scores):
    result = pages.groups(scores)
    assert result == {
        "What the model makes of it": ["drop_pct"],
        "Against the ground truth": ["ebpg"],
        "What the map looks like": ["spread"],
    }


@pytest.mark.parametrize(
    ("text", "name", "changed"),
    [
        ("sise:mu=0.3", "sise", {"mu": 0.3}),
        ("grad_cam", "grad_cam", {"layer": None}),
        ("consensus:of=[sise, grad_cam]", "consensus", {"of": ("sise", "grad_cam")}),
        ("fovex:steps=5,random_restart=false", "fovex", {"steps": 5, "random_restart": False}),
    ],
)
def test_methods_are_asked_for_with_their_settings(monkeypatch, text: str, name: str, changed: dict):
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.accuracy.evaluation_methods import Asked

    asked = Asked.of(text)
    assert asked.name == name
    assert {key: getattr(asked.settings, key) for key in changed} == changed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gradcam", "unknown method 'gradcam'; did you mean 'grad_cam'"),
        ("sise:nu=0.3", "cannot read the settings of 'sise:nu=0.3'"),
        ("sise:mu=2", "mu must be in"),
        ("consensus:of=[sise", "cannot read the settings"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(monkeypatch, text: str, said: str):
    monkeypatch.syspath_prepend(str(ROOT))
    from heatlas.errors import SettingsError

    from bench.accuracy.evaluation_methods import Asked

    with pytest.raises(SettingsError, match=said):
        Asked.of(text)


def test_the_page_names_machine_precision_and_both_sets(pages: ModuleType, scores):
    text = pages.page([scores, scores], "fp32")
    assert text.count("\n## Photographs\n") == 2
    assert re.search(r"Measured on .+, fp32 forwards, with `python -m bench evaluation`\.", text)
    assert "\n# Evaluation\n" in text


def test_scores_survive_a_kill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(ROOT))
    from heatlas.engine.session import Explained
    from heatlas.workers.samples import Sample

    from bench.accuracy.evaluation import ScoreFile
    from bench.data_sets import DATA_SETS

    file = ScoreFile(tmp_path, DATA_SETS[0], "Grad-CAM", "facts")
    file.path.write_text(json.dumps({"id": "a", "status": "ok"}) + '\n{"id": "b", "sta')
    again = ScoreFile(tmp_path, DATA_SETS[0], "Grad-CAM", "facts")
    assert set(again.found) == {"a"}
    again.add(
        Sample("c", "c.png"),
        Explained(
            "ok", None, 1, 1, 0.5, 0.0, mask_counts=(1,), n_forwards=2, key=0, metrics={"ebpg": 0.25}, seconds=0.1
        ),
        (2, 1),
    )
    result = ScoreFile(tmp_path, DATA_SETS[0], "Grad-CAM", "facts").found
    assert set(result) == {"a", "c"}, "what comes next starts on a line of its own"
    assert result["c"] == {"id": "c", "status": "ok", "forwards": 2, "backwards": 1, "values": {"ebpg": 0.25}}
    assert ScoreFile(tmp_path, DATA_SETS[0], "Grad-CAM", "others").path != file.path
