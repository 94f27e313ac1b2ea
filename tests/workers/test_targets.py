"""Which classes of an image are explained: rules as written, rules applied, and rows for several targets of one image."""

from __future__ import annotations

import pytest
import torch
from heatlas.errors import SampleError, TargetError
from heatlas.workers.events import ShardDone
from heatlas.workers.samples import Sample, Shard
from heatlas.workers.targets import TargetRule, parse_target, targets_of
from heatlas.workers.worker.shard_worker import ShardWorker
from hypothesis import given
from hypothesis import strategies as st

from ..support.fake_engine import FakeEngine, NoReader, PickleSink, fake_spec

NAMES = ("tench", "great white shark", "crane", "crane", "label")
SEEN = torch.tensor([0.5, 2.0, -1.0, 2.0, -3.0])


def applied(written, sample: Sample | None = None, seen: torch.Tensor | None = SEEN):
    rule = parse_target(written, NAMES, 5)
    return targets_of(rule, sample or Sample("a", "a"), seen if rule.asks_model else None, 5)


@pytest.mark.parametrize(
    ("written", "targets"),
    [
        ("predicted", (None,)),
        (3, (3,)),
        ("3", (3,)),
        ("3,0, 3", (3, 0)),
        ([3, "tench"], (3, 0)),
        ("great white shark", (1,)),
        ("tench,great white shark,4", (0, 1, 4)),
        ("label", (4,)),
        ("top:1", (1,)),
        ("top:3", (1, 3, 0)),
        ("above:0.5", (1, 3, 0)),
        ("above:0.7", (1, 3)),
        ("above: 0.26", (1, 3, 0, 2)),
        ("both", (1,)),
    ],
)
def test_rules(written, targets):
    assert applied(written) == targets, "a class that is called like a rule is the class"


def test_both_is_one_row_where_they_agree():
    assert applied("both", Sample("a", "a", label=0)) == (1, 0)
    assert applied("both", Sample("a", "a", label=1)) == (1,)
    assert applied("both", Sample("a", "a", label=77)) == (1,)


def test_what_is_not_there_is_never_chosen():
    areas = torch.tensor([1e-9, 0.25, float("-inf"), 0.5, float("-inf")])
    assert applied("top:5", seen=areas) == (3, 1, 0)


def test_an_output_that_cannot_be_ranked_is_explained_as_it_is():
    assert applied("top:2", seen=torch.full((5,), float("nan"))) == (None,)


@pytest.mark.parametrize(
    ("value", "targets"),
    [(2, (2,)), (2.0, (2,)), ("2", (2,)), ("tench", (0,)), ("great white shark,0", (1, 0)), ([1, 4], (1, 4))],
)
def test_a_column_says_each_sample_s_classes(value, targets):
    assert applied("column:claimed", Sample("a", "a", extra=(("other", 9), ("claimed", value)))) == targets


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "the sample has no value in the column 'claimed'"),
        ("", "the sample has no value in the column 'claimed'"),
        (5, "column 'claimed': target 5 is no class of the model, which has 5, from 0 to 4"),
        ("tenhc", "did you mean 'tench'?"),
    ],
)
def test_a_column_that_names_no_class_is_that_sample_s_error(value, text):
    with pytest.raises(SampleError) as caught:
        applied("column:claimed", Sample("a", "a", extra=(("claimed", value),)))
    assert caught.value.status == "label_error"
    assert text in str(caught.value)


def test_nothing_above_the_limit_is_no_target():
    with pytest.raises(
        SampleError, match=r"no class has a sigmoid above 0.9; the highest is class 1 with 0.881"
    ) as caught:
        applied("above:0.9")
    assert caught.value.status == "no_target"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("lable", "'lable' is neither a class of the model nor a rule; did you mean 'label'?"),
        ("crane", "names 2 classes of the model: write one of the indices 2, 3"),
        ("7", "target 7 is no class of the model, which has 5, from 0 to 4"),
        (-1, "target -1 is no class"),
        ("1,,2", "target '' is neither"),
        ("top:0", "top:K with a whole number K from 1 to 5"),
        ("top:6", "top:K with a whole number K from 1 to 5"),
        ("top:many", "target 'top:many' must be"),
        ("above:1", "a probability P in (0, 1), such as above:0.5"),
        ("above:half", "a probability P in (0, 1)"),
        ("column:", "names no column"),
        ([], "names no class"),
    ],
)
def test_refusals(written, text):
    with pytest.raises(TargetError) as caught:
        parse_target(written, NAMES, 5)
    assert text in str(caught.value)


def test_a_model_without_names_says_so():
    with pytest.raises(TargetError, match="the model does not name its classes, so only indices are known"):
        parse_target("tench", None, 5)


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=9), st.integers(1, 9), st.integers(0, 9))
def test_rules_choose_each_class_once_and_only_classes(seen, count, label):
    logits, sample = torch.tensor(seen), Sample("a", "a", label=label)
    for rule in (TargetRule("top", count=count), TargetRule("both")):
        result = targets_of(rule, sample, logits, len(seen))
        assert len(set(result)) == len(result) >= 1
        assert all(0 <= result < len(seen) for result in result)
        assert result[0] == int(logits.argmax())


# several rows of one image


def worked(folder, uris, written, **options):
    engine = FakeEngine(fake_spec(), None)
    samples = [Sample(f"s{number}", uri or "-", label=4 if number % 2 else 1) for number, uri in enumerate(uris)]
    rule = parse_target(written, None, 10)
    worker = ShardWorker(fake_spec(target=rule), NoReader(), PickleSink(folder), lambda spec, reader: engine)
    *_, last = worker.run(Shard(0, 0, len(samples)), samples, **options)
    assert isinstance(last, ShardDone), last
    return last, PickleSink(folder).rows(0)


@pytest.mark.parametrize("careful", [False, True])
def test_rows_stand_by_sample_and_then_by_target(tmp_path, careful):
    done, rows = worked(tmp_path, [""] * 4, "both", careful=careful)
    assert [(row.sample.id, row.target) for row in rows] == [
        ("s0", 1),
        ("s1", 1),
        ("s1", 4),
        ("s2", 1),
        ("s3", 1),
        ("s3", 4),
    ]
    assert [row.n_forwards for row in rows] == [11, 11, 10, 11, 11, 10], (
        "asking the model is paid once, by the first row"
    )
    assert (done.rows, done.images, done.statuses) == (6, 4, {"ok": 6})


def test_images_that_fail_have_one_row(tmp_path):
    _, rows = worked(tmp_path, ["", "decode:sample_error", "rank:raise", "push:raise"], "top:3")
    assert [(row.sample.id, row.status, row.target) for row in rows] == [
        ("s0", "ok", 1), ("s0", "ok", 4), ("s0", "ok", 0),
        ("s1", "decode_error", None),
        ("s2", "explain_error", None),
        ("s3", "explain_error", 1), ("s3", "explain_error", 4), ("s3", "explain_error", 0),
    ]  # fmt: skip
    assert [row.n_forwards for row in rows] == [11, 10, 10, 0, 0, 1, 0, 0]


def test_no_target_keeps_the_prediction(tmp_path):
    _, rows = worked(tmp_path, ["", ""], "above:0.99")
    assert [(row.status, row.prediction, row.target, row.n_forwards) for row in rows] == [("no_target", 1, None, 1)] * 2


def test_only_the_guilty_target_gets_the_error(tmp_path):
    engine = FakeEngine(fake_spec(), None)
    push = engine.session.push

    def fails_for_class_four(key, image, *, target=None, **options):
        if target == 4:
            raise RuntimeError("class 4 is bad")
        return push(key, image, target=target, **options)

    engine.session.push = fails_for_class_four
    rule = parse_target("top:3", None, 10)
    worker = ShardWorker(fake_spec(target=rule), NoReader(), PickleSink(tmp_path), lambda spec, reader: engine)
    samples = [Sample(f"s{number}", "-") for number in range(3)]
    assert isinstance(list(worker.run(Shard(0, 0, 3), samples))[-1], ShardDone)
    rows = PickleSink(tmp_path).rows(0)
    assert [(row.target, row.status) for row in rows] == [(1, "ok"), (4, "explain_error"), (0, "ok")] * 3
