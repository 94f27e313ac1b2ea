"""Choosing a method: ranks, resampled ranks, the cheapest of those that cannot be told apart, and the warning about what chose it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from heatlas.errors import StorageError, UsageError
from heatlas.pipeline.choose.choice import choice_place, read_choice
from heatlas.pipeline.choose.choose import choose_among, choose_by_trial
from heatlas.pipeline.choose.ranking import column_ranks, rank_methods
from heatlas.pipeline.choose.stratified_sample import stratified_ids
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.compare.compare import compare_runs
from heatlas.pipeline.compare.page import write_page
from heatlas.pipeline.compare.text import comparison_text
from scipy import stats

from ..support.scored_store import write_scores
from ..support.tiny_run import CLASSES, draw_all, importable_factory

IMAGES = 60


def test_ranks_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    means = random.integers(0, 4, size=(20, 5, 3)).astype(float)
    for draw, ranks in zip(means, column_ranks(means), strict=True):
        np.testing.assert_allclose(ranks, stats.rankdata(-draw, axis=0))


def test_a_clear_winner_and_its_certainty() -> None:
    values = np.random.default_rng(1).normal(size=(3, 2, 50)) * 0.1
    values[1] += 1.0
    ranking = rank_methods(values, resamples=200, seed=0)
    assert ranking.best == 1
    assert ranking.mean_rank[1] == ranking.low[1] == ranking.high[1] == 1
    assert ranking.best_share.tolist() == [0, 1, 0]
    assert ranking.is_open.tolist() == [False, True, False]
    assert ranking.behind_low[1] == ranking.behind_high[1] == 0


def test_equal_methods_cannot_be_told_apart_and_shares_sum_to_one() -> None:
    values = np.random.default_rng(2).normal(size=(4, 2, 40))
    values[3] = values[0]
    ranking = rank_methods(values, resamples=300, seed=0)
    assert ranking.best_share.sum() == pytest.approx(1)
    assert ranking.is_open[ranking.best]
    assert ranking.best_share[0] == pytest.approx(ranking.best_share[3])
    again = rank_methods(values, resamples=300, seed=0)
    np.testing.assert_array_equal(ranking.low, again.low)


def test_the_interval_of_resampled_means_holds_the_share_that_a_slow_bootstrap_finds() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(2, 1, 25)) + np.array([0.0, 0.15])[:, None, None]
    ranking = rank_methods(values, resamples=4000, seed=0)
    draws = [values[:, 0, random.integers(25, size=25)].mean(axis=1) for _ in range(4000)]
    wins = np.mean([draw[1] > draw[0] for draw in draws])
    assert ranking.best_share[1] == pytest.approx(wins, abs=0.04)


def test_images_without_a_value_count_for_no_method_in_that_column() -> None:
    values = np.zeros((2, 2, 4))
    values[0] = 1
    values[1, 0, :3] = np.nan
    values[1, 0, 3] = 5
    ranking = rank_methods(values, resamples=10, seed=0)
    assert ranking.images.tolist() == [1, 4]
    assert ranking.means.tolist() == [[1, 1], [5, 0]]
    values[1, 0] = np.nan
    with pytest.raises(UsageError, match="no image with a value from every method"):
        rank_methods(values, resamples=10, seed=0)


def test_every_label_has_its_share_of_the_sample() -> None:
    labels = ["a"] * 600 + ["b"] * 300 + ["c"] * 99 + ["d"]
    listing = pa.table({"id": [f"{place:04d}" for place in range(1000)], "label": labels})
    label_of = dict(zip(listing["id"].to_pylist(), labels, strict=True))
    for count in (10, 100, 333):
        counts = Counter(label_of[identity] for identity in stratified_ids(listing, count, 0))
        assert sum(counts.values()) == count
        for label, total in Counter(labels).items():
            assert abs(counts[label] - count * total / 1000) <= 2
            assert counts[label] >= 1
    shuffled = listing.take(pa.array(np.random.default_rng(0).permutation(1000)))
    assert stratified_ids(shuffled, 100, 0) == stratified_ids(listing, 100, 0)
    assert stratified_ids(listing, 100, 1) != stratified_ids(listing, 100, 0)
    assert set(stratified_ids(listing, 50, 0)) < set(stratified_ids(listing, 100, 0))
    assert len(stratified_ids(listing, 5000, 0)) == 1000
    unlabelled = pa.table({"id": ["a", "b", "c"], "label": pa.array([None] * 3, pa.string())})
    assert len(stratified_ids(unlabelled, 2, 0)) == 2
    with pytest.raises(UsageError, match="at least 1 image"):
        stratified_ids(listing, 0, 0)


def stores(folder: Path, **offsets: tuple[float, int]) -> list[str]:
    """A store per method: its name, how much better than the others, and its passes."""
    random = np.random.default_rng(7)
    common, out = random.uniform(0.2, 0.5, IMAGES), []
    chance = {place: {"random": {"ebpg": 0.1, "insertion_auc": 0.3, "deletion_auc": 0.3}, "gaussian": {"ebpg": 0.25, "insertion_auc": 0.4, "deletion_auc": 0.35}}
              for place in range(8)}  # fmt: skip
    for name, (offset, passes) in offsets.items():
        noise = random.normal(0, 0.05, IMAGES)
        scores = {
            "ebpg": (common + offset + noise).tolist(),
            "insertion_auc": (common + offset + noise[::-1]).tolist(),
            "deletion_auc": (common / 2).tolist(),
        }
        out.append(str(write_scores(folder / name, scores, chance=chance, method=name, model="m", passes=passes)))
    return out


def test_the_cheapest_of_those_that_cannot_be_told_apart_is_taken(tmp_path: Path) -> None:
    chosen = choose_among(stores(tmp_path, sise=(0.2, 400), rise=(0.2, 4000), grad_cam=(0.199, 3), lafam=(0.0, 1)))
    assert chosen.choice.method == "grad_cam"
    assert (
        "cheapest of 3 methods that cannot be told from the best" in chosen.choice.reason
        or "best and the cheapest of 3" in chosen.choice.reason
    )
    rows = {row["method"]: row for row in chosen.choice.rows}
    assert rows["lafam"]["mean_rank"] == 4
    assert [name for name, row in rows.items() if row["chosen"]] == ["grad_cam"]
    assert rows["sise"]["plausibility_chance"] == pytest.approx(0.25)
    assert rows["sise"]["faithfulness_chance"] == pytest.approx(0.0)
    assert sum(row["best_share"] for row in rows.values()) == pytest.approx(1)


def test_a_method_that_is_better_is_taken_whatever_it_costs(tmp_path: Path) -> None:
    chosen = choose_among(stores(tmp_path, sise=(0.3, 400), grad_cam=(0.0, 3)), columns=["plausibility"])
    assert chosen.choice.method == "sise"
    assert chosen.choice.reason.startswith(
        "sise (400 passes an image) is better than the others beyond chance, by plausibility over 60 images"
    )


def test_chance_is_subtracted_and_its_lack_is_said(tmp_path: Path) -> None:
    scores = {"ebpg": [0.3, 0.4, 0.5, 0.6]}
    places = [str(write_scores(tmp_path / name, scores, method=name)) for name in ("sise", "rise")]
    chosen = choose_among(places)
    assert chosen.choice.rows[0]["plausibility"] == pytest.approx(0.45)
    assert any("nothing was subtracted" in note for note in chosen.notes)
    with_chance = [
        str(
            write_scores(
                tmp_path / f"{name}-2",
                scores,
                method=name,
                chance={0: {"random": {"ebpg": 0.1}, "gaussian": {"ebpg": 0.2}}},
            )
        )
        for name in ("sise", "rise")
    ]
    assert choose_among(with_chance).choice.rows[0]["plausibility"] == pytest.approx(0.25)


def test_the_choice_is_read_back_and_a_broken_one_is_told(tmp_path: Path) -> None:
    places = stores(tmp_path, sise=(0.3, 400), grad_cam=(0.0, 3))
    chosen = choose_among(places)
    for place in places:
        assert read_choice(choice_place(place)) == chosen.choice
    Path(choice_place(places[0])).write_bytes(b"nothing")
    with pytest.raises(StorageError, match="no choice of `heatlas choose`"):
        compare_runs(*places)
    assert read_choice(str(tmp_path / "nowhere" / "choice.parquet")) is None


def test_compare_warns_when_what_chose_is_used_to_boast(tmp_path: Path) -> None:
    places = stores(tmp_path, sise=(0.3, 400), grad_cam=(0.0, 3))
    assert compare_runs(*places).warnings == []
    choose_among(places)
    for pair, side in ((places, "first"), (places[::-1], "second")):
        comparison = compare_runs(*pair)
        [warning] = comparison.warnings
        assert "sise was chosen by plausibility, faithfulness" in warning
        assert "ebpg, insertion_auc favour it partly because they chose it" in warning
        assert f"warning: {warning}" in comparison_text(comparison)
        assert all(row["favours"] == side for row in comparison.metrics if row["metric"] != "deletion_auc")
    write_page(compare_runs(*places), str(tmp_path / "page.html"))
    assert "Chosen by what is compared" in (tmp_path / "page.html").read_text("utf-8")
    assert compare_runs(*places, metrics=["deletion_auc"]).warnings == []
    other = stores(tmp_path / "more", sise=(0.3, 400), grad_cam=(0.0, 3))
    assert compare_runs(*other).warnings == []
    assert len(compare_runs(*other, choice=choice_place(places[0])).warnings) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "other"}, "another model"),
        ({"definitions": {"ebpg": "ebpg/v2"}}, "ebpg is ebpg/v2 in"),
    ],
)
def test_stores_that_do_not_compare_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    scores = {"ebpg": [0.1, 0.2, 0.3]}
    first = write_scores(tmp_path / "a", scores, method="sise", model="m")
    second = write_scores(tmp_path / "b", scores, method="rise", **{"model": "m", **change})
    with pytest.raises(UsageError, match=re.escape(message)):
        choose_among([str(first), str(second)])


def test_what_cannot_be_chosen_from_is_refused(tmp_path: Path) -> None:
    first, second = (str(write_scores(tmp_path / name, {"ebpg": [0.1, 0.2]}, method=name)) for name in ("sise", "rise"))
    for arguments, message in (
        (([first],), "at least 2 stores"),
        (([first, second], "plausible"), "did you mean 'plausibility'"),
        (([first, second], "faithfulness"), "needs insertion_auc"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            choose_among(arguments[0], columns=arguments[1:] or None)
    bare = str(write_scores(tmp_path / "bare", {"spread": [1.0, 2.0]}, method="lafam"))
    with pytest.raises(UsageError, match="no common metrics to rank by"):
        choose_among([first, bare])
    with pytest.raises(UsageError, match="sets 'method' itself"):
        choose_by_trial({"model": "m", "data": "d", "method": "sise"}, ["sise", "rise"], tmp_path / "trial")


def test_methods_are_tried_on_a_stratified_sample_and_one_that_does_not_fit_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "trial"
    draw_all(images, 24)
    with importable_factory(tmp_path):
        command = ["choose", "--model", "tiny_net:model", "--data", str(images), "--out", str(out), "--methods", "grad_cam", "lafam", "daam",
                   "--count", "6", "--preprocess.size", "24", "--preprocess.resize", "squash", "--workers", "0", "--metrics", "insertion_auc", "deletion_auc",
                   "--chance-maps", "2", "--resamples", "50", "--json"]  # fmt: skip
        assert main(command) == 0
        answer = json.loads(capsys.readouterr().out)
    assert set(answer["skipped"]) == {"daam"}
    assert {row["method"]: row["own_passes"] for row in answer["rows"]} == {"grad_cam": 3, "lafam": 1}
    assert all(row["passes"] > 40 for row in answer["rows"]), "those of the metrics are told apart"
    assert " an image, " in answer["reason"]
    assert " with the metrics)" in answer["reason"]
    assert answer["images"] == 6
    assert answer["columns"] == ["faithfulness"]
    choice = read_choice(str(out / "choice.parquet"))
    assert choice is not None
    assert choice.method == answer["method"]
    assert Counter(identity.split("/")[0] for identity in choice.ids or ()) == dict.fromkeys(CLASSES, 2)


def test_the_command_prints_its_reason_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = stores(tmp_path, sise=(0.3, 400), grad_cam=(0.0, 3))
    assert main(["choose", *places]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("sise (400 passes an image) is better")
    assert "->sise" in printed
    assert main(["choose", places[0], "--model", "m"]) == 2
    assert main(["choose", "--out", str(tmp_path)]) == 2
