"""Means and intervals from bucket sums: numpy's mean, scipy's bootstrap, and the same whatever is merged with what."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.statistics.bootstrap import BUCKETS, BucketSums, bucket_of, check_bootstrap
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


def ids(count: int) -> list[str]:
    return [f"img-{number:05d}" for number in range(count)]


@st.composite
def scores(draw: st.DrawFn) -> np.ndarray:
    """Up to 30 images and 3 columns, some values missing."""
    value = st.one_of(st.just(float("nan")), st.floats(-100, 100, width=32))
    columns = draw(st.integers(1, 3))
    rows = draw(st.lists(st.lists(value, min_size=columns, max_size=columns), min_size=1, max_size=30))
    return np.array(rows, dtype=np.float64)


@pytest.mark.parametrize("identity", ["a", "img/ü.jpg", "x" * 300, ""])
def test_buckets_are_duckdb_s(identity: str):
    [(bucket,)] = duckdb.connect().execute(f"SELECT (md5_number_lower(?) % {BUCKETS})::BIGINT", [identity]).fetchall()
    assert bucket_of(identity) == bucket


def test_means_leave_out_what_is_missing():
    sums = BucketSums.of(["a", "b", "c"], np.array([[1.0, np.nan], [2.0, 5.0], [6.0, np.nan]]))
    assert sums.means.tolist() == [3.0, 5.0]
    assert sums.number.tolist() == [3, 1]


def test_the_interval_is_scipy_s():
    values = np.random.default_rng(1).gamma(2.0, 3.0, 400)
    low, high = BucketSums.of(ids(400), values[:, None]).intervals(resamples=4000, seed=3)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(7))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert low[0] == pytest.approx(expected.confidence_interval.low, abs=0.06 * width)
    assert high[0] == pytest.approx(expected.confidence_interval.high, abs=0.06 * width)


def test_more_images_than_buckets_have_the_interval_of_the_normal_distribution():
    count = 3 * BUCKETS
    values = np.random.default_rng(2).normal(5.0, 2.0, count)
    low, high = BucketSums.of(ids(count), values[:, None]).intervals(resamples=600)
    half = 1.96 * values.std() / count**0.5
    assert high[0] - low[0] == pytest.approx(2 * half, rel=0.15)
    assert low[0] < values.mean() < high[0]


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    sums = BucketSums.of(ids(50), np.random.default_rng(0).random((50, 1)))
    first, again, other = sums.intervals(seed=1), sums.intervals(seed=1), sums.intervals(seed=2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("values", [[[4.0]], [[4.0], [np.nan]]])
def test_one_value_has_no_interval(values: list[list[float]]):
    low, high = BucketSums.of(ids(len(values)), np.array(values)).intervals()
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_no_image_at_all():
    sums = BucketSums.of([], np.empty((0, 2)))
    assert np.isnan(sums.means).all()
    assert np.isnan(sums.intervals()).all()


def test_equal_values_have_an_interval_without_width():
    low, high = BucketSums.of(ids(20), np.full((20, 1), 0.25)).intervals()
    assert (low[0], high[0]) == pytest.approx((0.25, 0.25))


@given(scores(), st.data())
def test_the_order_of_the_images_does_not_matter(values: np.ndarray, data: st.DataObject):
    names = ids(len(values))
    whole = BucketSums.of(names, values)
    order = data.draw(st.permutations(range(len(values))))
    other = BucketSums.of([names[place] for place in order], values[np.array(order, dtype=np.int64)])
    assert np.array_equal(other.buckets, whole.buckets)
    assert np.array_equal(other.counts, whole.counts)
    assert other.means == pytest.approx(whole.means, nan_ok=True, abs=1e-9)
    assert np.allclose(other.intervals(resamples=50), whole.intervals(resamples=50), equal_nan=True)


@given(scores())
def test_means_lie_in_their_intervals_range_and_columns_do_not_mix(values: np.ndarray):
    names = ids(len(values))
    sums = BucketSums.of(names, values)
    low, high = sums.intervals(resamples=60)
    assert np.all((low <= high) | np.isnan(low))
    alone = BucketSums.of(names, values[:, :1])
    assert alone.means[0] == pytest.approx(sums.means[0], nan_ok=True)
    assert np.allclose(alone.intervals(resamples=60)[0], low[:1], equal_nan=True)


@pytest.mark.parametrize(("resamples", "seed", "text"), [(0, 0, "resamples must be at least 1, got 0"), (9, -1, "seed must be at least 0, got -1")])  # fmt: skip
def test_refusals(resamples: int, seed: int, text: str):
    with pytest.raises(UsageError, match=text):
        check_bootstrap(resamples, seed)


def test_a_column_that_no_resample_met_has_no_interval_and_warns_of_nothing():
    values = np.full((200, 2), np.nan)
    values[:, 0], values[:2, 1] = 0.5, 1.0
    sums = BucketSums.of([f"img-{n}" for n in range(200)], values)
    results = [sums.intervals(resamples=1, seed=seed) for seed in range(20)]
    assert all(low[0] == high[0] == 0.5 for low, high in results)
    assert {bool(np.isnan(low[1])) for low, _ in results} == {True, False}
