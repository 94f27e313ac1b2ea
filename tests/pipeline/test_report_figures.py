"""Axes, bars, figures and names of a report: nothing is rounded to nothing, nothing leaves its drawing, nothing is markup."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from heatlas.pipeline.html.texts import between, clipped, figure, named, percent
from heatlas.pipeline.report.distributions import axis, drawn
from heatlas.pipeline.report.same_place import overlap
from heatlas.pipeline.report.scores import wilson
from hypothesis import given
from hypothesis import strategies as st


def test_an_axis_leaves_far_values_to_its_edges():
    low, high, _ = axis({"low": 0.0, "high": 1e9, "least": 0.0, "most": 1.0, "whole": False}, [0.0, "inf"])
    assert low < 0 <= 1 < high < 10
    assert axis({"low": 0.1, "high": 0.9, "least": 0.1, "most": 0.9, "whole": False}, [0.0, 1.0])[:2] == (0.0, 1.0)
    flat = axis({"low": 0.5, "high": 0.5, "least": 0.5, "most": 0.5, "whole": False}, None)
    assert flat[0] < 0.5 < flat[1]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40))
def test_bars_stay_in_the_drawing_and_none_disappears(counts: list[int]):
    entry = drawn(0.0, 1.0, counts, 0)
    assert len(entry.bars) == sum(count > 0 for count in counts)
    for x, y, width, height in entry.bars:
        assert 0 <= x <= x + width <= 280.2
        assert 0 <= y <= y + height <= 86.1
        assert height >= 1.5


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_share(hits: int, of: int):
    hits = min(hits, of)
    low, high = wilson(hits, of)  # pyright: ignore[reportGeneralTypeIssues]
    assert 0 <= low <= hits / of + 1e-12
    assert hits / of - 1e-12 <= high <= 1
    assert wilson(hits, 0) is None


def test_wilson_by_hand():
    low, high = wilson(8, 10)  # pyright: ignore[reportGeneralTypeIssues]
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\u2013"), (0.0, "0"), (0.0613, "0.061"), (51.14, "51.1"), (1204.4, "1,204"), (-0.5, "\u22120.50"), (3e-5, "3e-5"), (7.0, "7.00")],
)  # fmt: skip
def test_figures(value: float | None, text: str):
    assert figure(value) == text


@given(st.floats(min_value=1e-300, max_value=1e15))
def test_no_figure_rounds_something_to_nothing(value: float):
    assert re.search("[1-9]", figure(value))


@given(st.floats(0, 1))
def test_percent_never_rounds_to_nothing_or_all(share: float):
    assert (percent(share) == "0 %") == (100 * share == 0)
    assert (percent(share) == "100 %") == (100 * share >= 100)


@given(st.floats(0.001, 100), st.floats(0.001, 100))
def test_ends_of_an_interval_can_be_told_apart(one: float, other: float):
    low, high = sorted((one, other))
    if not math.isclose(low, high, rel_tol=1e-3):
        assert len(set(between(low, high).split(" to "))) == 2


@given(st.text(max_size=400))
def test_names_are_inert(text: str):
    shown = str(named(text))
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200f\x00\x1b")
    assert re.sub("</?(bdi|i)>", "", shown).find("<") == -1


def test_long_names_keep_both_ends():
    assert clipped("a" * 200 + "z" * 50, 60) == "a" * 39 + "…" + "z" * 20
    assert len(clipped("x" * 500, 120)) == 120


def test_overlap_by_hand():
    first, second = np.zeros((2, 5)), np.zeros((2, 5))
    first[0, 0] = first[0, 1] = second[0, 1] = second[0, 2] = 1
    assert overlap(first, second) == pytest.approx(1 / 3)
    assert overlap(first, first) == 1
    assert overlap(np.zeros((2, 5)), np.ones((2, 5))) == 1, "ties are broken alike"
