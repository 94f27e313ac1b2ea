"""`heatlas intervene`: a planted mark is confirmed, clean classes and clean places are not, and what is written can be read by everybody."""

from __future__ import annotations

import json
import re
from pathlib import Path

import heatlas
import numpy as np
import pytest
import torch
from heatlas.engine.interventions.effects import Removals
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.intervene.effect_tests import judge_groups
from heatlas.pipeline.intervene.group_effects import GroupEffects
from heatlas.pipeline.intervene.groups_of_rows import ExplainedRow, RowGroup
from heatlas.pipeline.intervene.intervene import intervene_store
from heatlas.pipeline.intervene.intervention_table import interventions_of
from heatlas.pipeline.intervene.places import PLACES, hot_region, place_region

from ..support.marked_store import MARK, MARK_BOX, SIDE, is_marked, log_shortcuts


def mark_mask() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[MARK] = True
    return mask


def decide_marks(store: str) -> None:
    atlas = heatlas.open(store)
    marked = [identity for identity in atlas.table(["id"])["id"].to_pylist() if is_marked(int(Path(identity).stem))]
    atlas.decide(marked, "shortcut", mask=mark_mask())


def verdicts(store: str) -> dict[str, dict]:
    table = interventions_of(store)
    assert table is not None
    return {row["class_name"]: row for row in table.to_pylist()}


def test_a_planted_mark_is_confirmed_and_clean_classes_are_not(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["intervene", store, "--region", MARK_BOX, "--images", "24"]) == 0
    rows = verdicts(store)
    assert {name: row["confirmed"] for name, row in rows.items()} == {"ant": False, "bee": True, "cat": False}
    bee = rows["bee"]
    assert (bee["needed"], bee["sufficient"]) == (True, True)
    assert bee["necessity_mean"] > 0.5
    assert bee["necessity_low"] > 0.3
    assert abs(bee["necessity_control"]) < 0.05
    assert bee["turned"] > 0.6
    assert bee["turned_control"] < 0.05
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == bee["text"]
    assert re.match(
        r"bee: removing the box .* costs \d\d points of confidence .* Confirmed: the model needs it, and it is enough\.",
        printed[0],
    )
    assert sum("Not confirmed." in line for line in printed) == 2


def test_columns_stand_beside_the_store_and_a_second_call_replaces_them(store: str) -> None:
    first = intervene_store(store, MARK_BOX, images=24)
    atlas = heatlas.open(store)
    rows = atlas.table(["id", "prediction", "necessity", "sufficiency", "confirmed"]).to_pylist()
    measured = [row for row in rows if row["confirmed"] is not None]
    assert len(measured) == 72
    for row in measured:
        marked = is_marked(int(Path(row["id"]).stem))
        assert row["confirmed"] == float(marked), row
        assert (row["necessity"] > 0.5) == marked
        assert (row["sufficiency"] > 0.3) == marked
    assert atlas.verify().ok
    assert atlas.status().evaluations[0].complete
    mean = atlas.summary(resamples=1).to_pylist()
    assert {row["metric"] for row in mean} >= {"necessity", "confirmed"}
    intervene_store(store, "upper_right", images=10)
    again = heatlas.open(store)
    assert len(again.status().evaluations) == 1
    assert again.count("confirmed IS NOT NULL") == 30
    assert again.count("confirmed = 1") == 0
    assert first.columns == "metrics/" + Path(first.columns).name


@pytest.mark.parametrize("place", ["0,0,0.2,0.2", "0.8,0.8,1,1"])
def test_a_clean_place_confirms_nobody(store: str, place: str) -> None:
    assert intervene_store(store, place, images=20).groups["confirmed"].to_pylist() == [False] * 3


def test_painted_masks_and_clusters_are_regions(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no shortcut decision"):
        intervene_store(store, "masks")
    with pytest.raises(UsageError, match="heatlas cluster"):
        intervene_store(store, "clusters")
    decide_marks(store)
    masks = intervene_store(store, "masks", images=16).groups.to_pylist()
    assert [(row["class_name"], row["confirmed"]) for row in masks] == [("bee", True)]
    assert main(["cluster", store, "--min-size", "5"]) == 0
    capsys.readouterr()
    groups = intervene_store(store, "clusters", images=16, classes=["bee"]).groups.to_pylist()
    assert any(row["confirmed"] and row["necessity_mean"] > 0.3 for row in groups)
    with pytest.raises(UsageError, match=re.escape("it has cluster:")):
        intervene_store(store, "cluster:bee:99")


def test_a_mask_of_another_size_than_its_image_is_refused(store: str) -> None:
    """Stretched over the image it would lie somewhere else in silence."""
    log_shortcuts(store, [f"bee/{number:03d}.png" for number in (1, 4, 7, 10, 13)], np.ones((12, 24), bool))
    with pytest.raises(UsageError, match=re.escape("has 24 x 12 pixels, the upright image 24 x 24")):
        intervene_store(store, "masks")


def test_a_region_that_is_the_whole_image_confirms_nothing_by_itself(store: str) -> None:
    """Pasted, it makes any image one of its class; so a box is refused, and of masks the colours are exchanged."""
    with pytest.raises(UsageError, match="is 100 % of the image: pasted into another one"):
        intervene_store(store, "0,0,1,1")
    atlas = heatlas.open(store)
    ants = [f"ant/{number:03d}.png" for number in range(0, 90, 3)]
    atlas.decide(ants[:14], "shortcut", mask=np.ones((SIDE, SIDE), bool))
    atlas.decide(ants[14:20], "core")
    [row] = intervene_store(store, "masks", images=16).groups.to_pylist()
    assert row["class_name"] == "ant"
    assert not row["confirmed"], row["text"]
    assert "the colours of what was painted" in row["text"]


def test_an_empty_mask_is_no_region(store: str) -> None:
    heatlas.open(store).decide(
        [f"bee/{number:03d}.png" for number in (1, 4, 7, 10, 13, 16)], "shortcut", mask=np.zeros((24, 24), bool)
    )
    with pytest.raises(UsageError, match="fewer than 5 images with a region"):
        intervene_store(store, "masks")


def test_cues_that_were_probed_are_regions_or_changes(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=re.escape("--probe` first")):
        intervene_store(store, "cues")
    assert main(["curate", store, "--probe", "--recipe", "shortcut"]) == 0
    capsys.readouterr()
    assert main(["intervene", store, "--region", "cues", "--images", "24", "--json"]) == 0
    groups = {row["class_name"]: row for row in json.loads(capsys.readouterr().out)["groups"]}
    assert groups["bee"]["confirmed"]
    assert not any(row["confirmed"] for name, row in groups.items() if name != "bee")


def test_the_report_says_it(store: str, tmp_path: Path) -> None:
    intervene_store(store, MARK_BOX, images=16)
    page = Path(heatlas.open(store).report(tmp_path / "page.html").uri).read_text()
    place = page.find("What interventions say")
    assert "Confirmed: the model needs it" in page, page[place : place + 900]


def test_a_fill_of_ones_own_and_python(store: str) -> None:
    seen = []

    def fill(images: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape))
        return torch.full_like(images, 0.2)

    groups = heatlas.open(store).intervene(MARK_BOX, images=8, classes=["bee"], fill=fill).groups
    assert groups["confirmed"].to_pylist() == [True]
    assert seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "lower_lef"}, "did you mean 'lower_left'"),
        ({"region": "0,0,2,1"}, "shares of the network's input"),
        ({"region": "a,b"}, "four numbers"),
        ({"region": "top", "classes": ["be"]}, "did you mean 'bee'"),
        ({"region": "top", "fill": "grey"}, "choose surround, mean, blur, impute"),
        ({"region": "top", "fill": "nowhere_at_all:fill"}, "nowhere_at_all"),
        ({"region": "top", "images": 4}, "images must be at least 5"),
        ({"region": "top", "receivers": 0}, "receivers must be at least 1"),
        ({"region": "top", "method": "rise"}, "no rows of the method 'rise'"),
    ],
)
def test_what_cannot_be_done_is_refused(store: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        intervene_store(store, **options)
    assert interventions_of(store) is None


def test_places_are_where_their_names_say() -> None:
    for name in PLACES:
        region = place_region(name, (30, 60))
        assert 0 < region.mean() < 0.5
    assert place_region("lower_left", (30, 60))[29, 0]
    assert place_region("border", (16, 16)).sum() == 16 * 16 - 12 * 12
    assert np.flatnonzero(place_region("0.5,0,1,1", (4, 4))[0]).tolist() == [2, 3]
    peak = np.zeros((4, 4))
    peak[3, 0] = 1.0
    hot = hot_region(peak, (8, 8))
    assert hot[7, 0]
    assert not hot[:4].any()
    assert not hot_region(np.zeros((4, 4)), (8, 8)).any()


def effects_of(
    drop: float, control: float, null: float, rise: float, null_rise: float, seed: int, count: int = 40
) -> GroupEffects:
    """Effects that are drawn around given means."""
    random = np.random.default_rng(seed)
    rows = tuple(ExplainedRow(f"{seed}-{number}", 0, 0, 0) for number in range(count))

    def around(mean: float) -> np.ndarray:
        return mean + random.normal(0, 0.05, count)

    def removals(lost: float) -> Removals:
        whole, flags = np.full(count, 0.9), np.zeros(count, bool)
        return Removals(
            whole, whole - around(lost), whole - around(control), ~flags, flags, flags * 1.0, flags, flags * 1.0
        )

    group = RowGroup("ant", 0, "the mark", rows, None)
    return GroupEffects(
        group,
        rows,
        removals(drop),
        removals(null),
        around(rise),
        around(0),
        around(null_rise),
        around(0),
        0.5,
        0.0,
        0.0,
    )


@pytest.mark.parametrize(
    ("numbers", "needed", "sufficient"),
    [
        ((0.6, 0.0, 0.0, 0.5, 0.0), True, True),
        ((0.0, 0.0, 0.0, 0.0, 0.0), False, False),
        ((0.6, 0.6, 0.0, 0.0, 0.0), False, False),  # any region of that size costs as much
        ((0.6, 0.0, 0.6, 0.0, 0.0), False, False),  # the place matters in every class
        ((0.0, 0.0, 0.0, 0.2, 0.2), False, False),  # any image's region makes the class: a null of 20 %
        ((0.06, 0.0, 0.0, 0.0, 0.0), False, False),  # significant, and too small to matter
        ((-0.5, 0.0, 0.0, 0.4, 0.0), False, True),
    ],
)
def test_an_effect_counts_beyond_both_nulls_only(numbers: tuple[float, ...], needed: bool, sufficient: bool) -> None:
    (verdict,) = judge_groups([effects_of(*numbers, seed=0)])
    assert (verdict.necessity.counts, verdict.sufficiency.counts) == (needed, sufficient)
    assert verdict.confirmed == (needed or sufficient)


def test_classes_without_an_effect_are_seldom_confirmed_however_many_there_are() -> None:
    null = judge_groups([effects_of(0.02, 0.02, 0.02, 0.01, 0.01, seed=seed) for seed in range(40)], resamples=20)
    assert not any(verdict.confirmed for verdict in null)
    assert (
        min(verdict.necessity.p for verdict in null) < 0.3
    )  # without Holm's correction and a least effect some would look like one
    assert all(verdict.necessity.p_holm >= verdict.necessity.p for verdict in null)
