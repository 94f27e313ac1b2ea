"""What the pages of SISE+ and of randomised models say of numbers: paired differences, their sign by the metric, and images without a map."""

from __future__ import annotations

import numpy as np
import pytest

from ..support.checkout import checkout_module


@pytest.fixture(scope="module")
def checked():
    return checkout_module("bench.accuracy.sise_plus_checked")


def values(checked, **shift: float) -> dict[str, np.ndarray]:
    """Of 40 images the same numbers for every method, shifted."""
    base = np.random.default_rng(0).normal(size=(40, len(checked.WANTED)))
    return {name: base + shift.get(name, 0.0) for name in (checked.BASE, checked.OURS, *checked.RIVALS)}


def test_higher_is_better_or_worse_as_the_metric_says(checked) -> None:
    rows = {row[0].split("`")[1]: row for row in checked.rows_of(values(checked, sise_plus=1.0))}
    assert list(rows) == list(checked.WANTED)
    assert rows["insertion_auc"][-2] == "+1 [1, 1] better"
    assert rows["deletion_auc"][-2] == "+1 [1, 1] worse"
    assert rows["deletion_auc"][0].endswith("↓")


def test_the_best_other_is_named_and_compared(checked) -> None:
    row = checked.rows_of(values(checked, occlusion=2.0, ucag=-2.0))[checked.WANTED.index("ebpg")]
    assert row[-1] == "occlusion: -2 [-2, -2] worse"
    row = checked.rows_of(values(checked, occlusion=2.0, ucag=-2.0))[checked.WANTED.index("drop_pct")]
    assert row[-1] == "ucag: +2 [2, 2] worse"


def test_differences_that_chance_explains_are_called_so(checked) -> None:
    noise = np.random.default_rng(1).normal(size=30)
    assert checked.difference(noise, -noise, "ebpg").endswith("no difference shown")
    assert checked.difference(np.full(3, np.nan), noise[:3], "ebpg") == "-"


def test_a_metric_that_no_method_has_is_left_out(checked) -> None:
    without = {name: each.copy() for name, each in values(checked).items()}
    for each in without.values():
        each[:, checked.WANTED.index("ebpg")] = np.nan
    assert not any("ebpg" in row[0] for row in checked.rows_of(without))


def test_correlations_tell_their_error_and_what_is_missing() -> None:
    random_models = checkout_module("bench.accuracy.random_models")
    assert random_models.shown([0.5, 0.7, None]) == "0.60 ± 0.20 (1 without a map)"
    assert random_models.shown([0.25]) == "0.25"
    assert random_models.shown([None]) == "-"
