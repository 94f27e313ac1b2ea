"""Paired comparison: scipy's test, an effect size by hand, Holm by hand, and who is said to win."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.atlas import open_atlas
from heatlas.pipeline.statistics.paired_tests import holm, paired_test
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from ..support.scored_store import write_scores

COUNT = 60


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, COUNT)


@pytest.fixture
def runs(tmp_path: Path):
    drops = 50 + 10 * noise(1)
    first = write_scores(
        tmp_path / "a",
        {"drop_pct": (drops - 3 + noise(2)).tolist(), "ebpg": noise(3).tolist(), "spread": (noise(6) + 9).tolist()},
    )
    second = write_scores(tmp_path / "b", {"drop_pct": drops.tolist(), "ebpg": noise(4).tolist(), "spread": noise(6).tolist()}, failed=[7])  # fmt: skip
    return open_atlas(first), open_atlas(second)


def test_effect_and_rank_sums_by_hand():
    test = paired_test(np.array([0.0, 1.0, -2.0, 3.0, 4.0]))  # ranks 1, 2, 3, 4; the zero is left out
    assert (test.n, test.statistic) == (4, 2.0)
    assert test.effect == pytest.approx((8 - 2) / 10)


def test_all_equal_is_no_difference():
    test = paired_test(np.zeros(5))
    assert (test.n, test.p, test.effect) == (0, 1.0, 0.0)


@pytest.mark.parametrize("count", [6, 40, 300])
def test_the_test_is_scipy_s(count: int):
    differences = np.random.default_rng(count).normal(0.3, 1, count)
    test, expected = paired_test(differences), stats.wilcoxon(differences)
    assert test.statistic == pytest.approx(expected.statistic)
    assert test.p == pytest.approx(expected.pvalue)


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(-5, 5).map(float)))
def test_swapping_the_two_turns_the_effect_round(differences: np.ndarray):
    first, second = paired_test(differences), paired_test(-differences)
    assert first.effect == pytest.approx(-second.effect)
    assert first.p == pytest.approx(second.p)
    assert 0 <= first.p <= 1
    assert -1 <= first.effect <= 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_bonferroni_by_closed_testing():
    """A hypothesis is rejected where every set that holds it is: the largest Bonferroni p over all such sets."""
    random = np.random.default_rng(3)
    for count in (1, 2, 5, 7):
        p_values = random.random(count) ** 3
        sets = [[place for place in range(count) if number >> place & 1] for number in range(1, 2**count)]
        bonferroni = [min(1.0, len(chosen) * min(p_values[place] for place in chosen)) for chosen in sets]
        expected = [
            max(p for chosen, p in zip(sets, bonferroni, strict=True) if place in chosen) for place in range(count)
        ]
        assert holm(p_values.tolist()) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), max_size=10))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p_values: list[float]):
    corrected = holm(p_values)
    for p, entry in zip(p_values, corrected, strict=True):
        assert p <= entry <= min(1.0, p * len(p_values)) + 1e-12
    assert [corrected[place] for place in np.argsort(p_values, kind="stable")] == sorted(corrected)


def test_two_runs(runs):
    first, second = runs
    result = {row["metric"]: row for row in first.compare(second).to_pylist()}
    drop = result["drop_pct"]
    assert drop["n"] == COUNT - 1, "an image that failed in one run is in no pair"
    assert drop["difference"] == pytest.approx(drop["first_mean"] - drop["second_mean"])
    assert drop["low"] < drop["difference"] < drop["high"] < 0
    assert drop["effect"] < -0.9
    assert drop["favours"] == "first", "a lower drop is better"
    assert result["ebpg"]["favours"] == "neither"
    assert result["spread"]["p_holm"] < 0.001
    assert result["spread"]["favours"] == "neither", "neither end of it is better"
    assert all(row["p"] <= row["p_holm"] for row in result.values())


def test_the_other_way_round(runs):
    first, second = runs
    entry, two = (a.compare(b, ["drop_pct"]).to_pylist()[0] for a, b in (runs, (second, first)))
    assert two["favours"] == "second"
    assert (two["effect"], two["difference"]) == (pytest.approx(-entry["effect"]), pytest.approx(-entry["difference"]))


def test_a_run_with_itself_differs_nowhere(runs):
    for row in runs[0].compare(runs[0]).to_pylist():
        assert (row["difference"], row["p"], row["effect"], row["favours"]) == (0, 1, 0, "neither")


def test_rounding_is_no_difference(tmp_path: Path):
    values = 50 + 10 * noise(1)
    first, second = (
        open_atlas(write_scores(tmp_path / name, {"drop_pct": given.tolist()}))
        for name, given in (("a", values), ("b", values + 1e-6))
    )
    assert first.compare(second).to_pylist()[0]["p"] == 1


def test_against_its_chance_baseline(tmp_path: Path):
    drops = 50 + noise(1)
    chance = {
        place: {"random": {"drop_pct": float(drops[place]) + 40}, "gaussian": {"drop_pct": float(drops[place]) - 9}}
        for place in range(20)
    }
    atlas = open_atlas(write_scores(tmp_path / "a", {"drop_pct": drops.tolist()}, chance=chance))
    [entry] = atlas.compare("random").to_pylist()
    assert (entry["n"], entry["difference"], entry["favours"]) == (20, pytest.approx(-40), "first")
    assert atlas.compare("gaussian").to_pylist()[0]["favours"] == "second"


def test_conditions_choose_rows(runs):
    [entry] = runs[0].compare(runs[1], ["ebpg"], where="label = 0").to_pylist()
    assert entry["n"] == COUNT // 2


@pytest.mark.parametrize(
    ("other", "options", "text"),
    [
        ("b", {"metrics": ["drop"]}, "cannot compare 'drop'; did you mean 'drop_pct'?"),
        ("randem", {}, "unknown chance map 'randem'; did you mean 'random'?; give random, gaussian or a run"),
        ("random", {}, "has no chance maps of that kind; run with --chance-maps above 0"),
        ("b", {"where": "label = 0", "second_where": "label = 1"}, "have no image in common that is ok in both"),
        ("b", {"where": "lable = 0"}, "DuckDB refuses"),
        ("b", {"resamples": 0}, "resamples must be at least 1, got 0"),
    ],
)
def test_refusals(runs, other: str, options: dict, text: str):
    with pytest.raises(UsageError) as error:
        runs[0].compare(runs[1] if other == "b" else other, **options)
    assert text in str(error.value)


def test_metrics_of_another_definition_are_not_compared(tmp_path: Path):
    scores = {"drop_pct": [1.0, 2.0], "ebpg": [0.1, 0.2]}
    first = open_atlas(write_scores(tmp_path / "a", scores))
    second = open_atlas(write_scores(tmp_path / "b", scores, definitions={"drop_pct": "drop_pct/v2"}))
    assert first.compare(second)["metric"].to_pylist() == ["ebpg"]
    with pytest.raises(UsageError, match="define it differently"):
        first.compare(second, ["drop_pct"])
