"""The evaluation's page: means over the same images, the best in bold, and a verdict where a paired test finds one."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
COUNT = 40


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluation_page", ROOT / "bench" / "evaluation_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["evaluation_page"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(ebpg: float, drop: float, status: str = "ok") -> dict:
    values = {"ebpg": ebpg, "drop_pct": drop, "spread": 0.1} if status == "ok" else {}
    return {"status": status, "forwards": 11, "values": values}


@pytest.fixture
def scores(pages: ModuleType):
    noise = np.random.default_rng(0).random((2, COUNT))
    ids = [f"img-{number}" for number in range(COUNT)]
    ours = {one: record(0.5 + 0.1 * noise[0, place], 20.0 + noise[1, place]) for place, one in enumerate(ids)}
    theirs = {one: record(0.3 + 0.1 * noise[1, place], 10.0 + noise[0, place]) for place, one in enumerate(ids)}
    theirs["img-3"] = record(0, 0, "constant_map")
    del theirs["img-5"]
    return pages.Scores("Photographs", COUNT, {"SISE, mu = 0.5": ours, "Grad-CAM": theirs}, ids)


def test_means_are_over_the_images_with_a_map_and_the_others_are_counted(pages: ModuleType, scores):
    assert len(scores.tried) == COUNT - 1, "one was not tried by both"
    text = pages.section(scores)
    assert f"{COUNT - 1} images of the {COUNT} asked for." in text
    assert "Grad-CAM gave 1 of them no map (constant_map 1)." in text
    assert f"| images with a map | | {COUNT - 1} | {COUNT - 2} |" in text
    mean = np.mean([scores.by_method["SISE, mu = 0.5"][one]["values"]["ebpg"] for one in scores.tried])
    assert f"**{mean:.4g} [" in text


def bold(pages: ModuleType, scores, metric: str) -> list[bool]:
    rows = {
        cells[1].strip(): cells[3:5]
        for line in pages.section(scores).splitlines()
        if len(cells := line.split("|")) == 6
    }
    return [cell.strip().startswith("**") for cell in rows[f"`{metric}`"]]


def test_the_best_is_bold_where_an_end_is_better(pages: ModuleType, scores):
    whole = pages.Scores("Photographs", COUNT, scores.by_method, [one for one in scores.tried if one != "img-3"])
    assert bold(pages, whole, "ebpg") == [True, False]
    assert bold(pages, whole, "drop_pct") == [False, True]
    assert bold(pages, whole, "spread") == [False, False]


def test_a_method_that_leaves_images_out_is_not_the_best(pages: ModuleType, scores):
    assert bold(pages, scores, "drop_pct") == [True, False], "Grad-CAM's is lower, but over fewer images"


def test_where_sise_does_not_win_is_said(pages: ModuleType, scores):
    assert pages.verdict(scores, "SISE, mu = 0.5", "Grad-CAM") == (
        "- **SISE, mu = 0.5** against Grad-CAM: better in `ebpg` (+1.00); **worse in** `drop_pct` (+1.00); no difference shown in none."
    )
    assert "no difference shown in `drop_pct` (+0.00), `ebpg` (+0.00)" in pages.verdict(scores, "Grad-CAM", "Grad-CAM")


def test_the_page_names_machine_precision_and_both_sets(pages: ModuleType, scores):
    text = pages.page([scores, scores], "fp32")
    assert text.count("\n## Photographs\n") == 2
    assert re.search(r"Measured on .+, fp32 forwards\.", text)


def test_scores_survive_a_kill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("captum")
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.evaluation import ScoreFile
    from bench.evaluation_data import DATA_SETS

    file = ScoreFile(tmp_path, DATA_SETS[0], "Grad-CAM", "facts")
    file.path.write_text(json.dumps({"id": "a", "status": "ok"}) + '\n{"id": "b", "sta')
    assert set(ScoreFile(tmp_path, DATA_SETS[0], "Grad-CAM", "facts").found) == {"a"}
    assert file.path.read_text() == '{"id": "a", "status": "ok"}\n', "what comes next starts on a line of its own"
    assert ScoreFile(tmp_path, DATA_SETS[0], "Grad-CAM", "others").path != file.path
