import itertools

import numpy as np
import pyarrow as pa
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.shards import default_shard_size, plan_digest, plan_shards, samples_of
from heatlas.pipeline.sources.listing.check import check_unique_ids, listing_digest
from heatlas.workers.samples import Sample, Shard
from hypothesis import given
from hypothesis import strategies as st

BOXES = pa.list_(pa.list_(pa.float64()))
SCHEMA = pa.schema(
    [("id", pa.string()), ("uri", pa.string()), ("label", pa.int32()), ("boxes", BOXES), ("mask_uri", pa.string())]
)


def listing_of(ids, **columns):
    given_columns = {"id": ids, "uri": [f"/d/{name}" for name in ids], **columns}
    empty = [None] * len(ids)
    return pa.table([given_columns.get(name, empty) for name in SCHEMA.names], schema=SCHEMA)


# --- shards


@given(count=st.integers(1, 5000), size=st.integers(1, 700))
def test_shards_tile_the_listing_evenly(count, size):
    plan = plan_shards(count, size)
    assert [shard.index for shard in plan] == list(range(len(plan)))
    assert (plan[0].start, plan[-1].stop) == (0, count)
    assert all(left.stop == right.start for left, right in itertools.pairwise(plan))
    sizes = [len(shard) for shard in plan]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert max(sizes) <= size
    assert len(plan) == -(-count // size)


def test_shards_by_hand():
    assert plan_shards(10, 4) == [Shard(0, 0, 3), Shard(1, 3, 6), Shard(2, 6, 10)]


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 1), (64, 1), (65, 2), (300, 5), (16384, 256), (10**7, 256)])
def test_default_size_makes_64_shards_of_at_most_256(count, size):
    assert default_shard_size(count) == size


@pytest.mark.parametrize(("count", "least", "size"), [(1, 8, 1), (3, 8, 2), (12, 6, 6), (100, 8, 8), (6400, 8, 100)])
def test_shards_are_large_enough_to_fill_batches_but_small_sets_are_halved(count, least, size):
    assert default_shard_size(count, least) == size


def test_ten_million_samples_are_planned():
    plan = plan_shards(10**7, default_shard_size(10**7))
    assert len(plan) == 39063
    assert sum(map(len, plan)) == 10**7


@pytest.mark.parametrize(
    ("count", "size", "text"),
    [(0, 5, "at least 1 sample, got 0; check that --data"), (5, 0, "at least 1, got 0; leave it out")],
)
def test_impossible_plans_say_why(count, size, text):
    with pytest.raises(DataError, match=text):
        plan_shards(count, size)


def test_plan_digest_tells_plans_apart():
    plans = [plan_shards(10, 4), plan_shards(10, 5), plan_shards(11, 4)]
    assert len({plan_digest("a", plan) for plan in plans} | {plan_digest("b", plans[0])}) == 4
    assert plan_digest("a", plans[0]) == plan_digest("a", plan_shards(10, 4))


# --- samples


def test_samples_by_hand():
    listing = listing_of(
        ["a", "b", "c"], label=[0, None, 2], boxes=[[[0, 1, 2, 3.5]], None, []], mask_uri=["m", None, None]
    )
    assert samples_of(listing, Shard(0, 0, 2)) == [
        Sample("a", "/d/a", 0, ((0.0, 1.0, 2.0, 3.5),), "m"),
        Sample("b", "/d/b"),
    ]
    assert samples_of(listing, Shard(1, 2, 3)) == [Sample("c", "/d/c", 2)]


def test_samples_outside_the_listing_are_refused():
    with pytest.raises(DataError, match=r"shard 1 is \[2, 4\) but the listing has 3 samples"):
        samples_of(listing_of(["a", "b", "c"]), Shard(1, 2, 4))


def test_labels_must_be_resolved():
    listing = listing_of(["a"]).set_column(2, "label", pa.array(["cat"]))
    with pytest.raises(DataError, match="labels are string, not class indices"):
        samples_of(listing, Shard(0, 0, 1))


# --- ids


def test_unique_ids_pass_in_any_order():
    check_unique_ids(listing_of([]))
    check_unique_ids(listing_of(["b", "a", "c"]))


@given(st.lists(st.text(max_size=3), max_size=12))
def test_ids_are_refused_exactly_when_one_repeats(ids):
    listing = listing_of(ids)
    if len(set(ids)) == len(ids):
        check_unique_ids(listing)
    else:
        with pytest.raises(DataError, match="names two samples"):
            check_unique_ids(listing)


def test_duplicate_ids_name_both_offenders():
    listing = listing_of(["a", "b", "a"], uri=["/d/1.png", "/d/2.png", "/e/1.png"])
    with pytest.raises(
        DataError, match=r"the id 'a' names two samples: '/d/1.png' \(row 0\) and '/e/1.png' \(row 2\); .*rename"
    ):
        check_unique_ids(listing)


def test_a_missing_id_is_named():
    with pytest.raises(DataError, match=r"'/d/2.png' \(row 1\) has no id"):
        check_unique_ids(listing_of(["a", None], uri=["/d/1.png", "/d/2.png"]))


# --- digest


def test_digest_does_not_depend_on_chunks_column_order_or_string_width():
    ids = [f"{number:05d}" for number in range(1000)]
    boxes = [[[0.0, 1.0, 2.0, float(number)]] * (number % 3) if number % 4 else None for number in range(1000)]
    whole = listing_of(ids, label=[number % 5 or None for number in range(1000)], boxes=boxes)
    pieces = pa.concat_tables([whole.slice(start, 77) for start in range(0, 1000, 77)])
    wide = whole.set_column(0, "id", whole["id"].cast(pa.large_string()))
    digests = {
        listing_digest(entry) for entry in (whole, pieces, wide, whole.select(SCHEMA.names[::-1]), whole.slice(0))
    }
    assert len(digests) == 1
    assert listing_digest(whole.slice(1)) != listing_digest(whole.slice(0, 999))


def test_digest_crosses_its_own_block_borders():
    ids = pa.array(np.arange(140_000).astype(str))
    table = pa.table({"id": ids})
    assert listing_digest(table) == listing_digest(pa.concat_tables([table.slice(0, 65537), table.slice(65537)]))


@given(st.lists(st.tuples(st.text(max_size=2), st.none() | st.integers(0, 2)), max_size=4, unique=True), st.data())
def test_digest_tells_every_change(rows, data):
    other = data.draw(st.lists(st.tuples(st.text(max_size=2), st.none() | st.integers(0, 2)), max_size=4))
    first, second = (
        listing_of([entry[0] for entry in some], label=[entry[1] for entry in some]) for some in (rows, other)
    )
    assert (listing_digest(first) == listing_digest(second)) == (rows == other)


def test_digest_sees_what_lists_hold():
    listings = [listing_of(["a"], boxes=[boxes]) for boxes in (None, [], [[]], [[1.0, 2.0]], [[1.0], [2.0]], [None])]
    assert len({listing_digest(listing) for listing in listings}) == len(listings)
