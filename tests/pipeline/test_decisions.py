"""Decisions: the latest wins, undo brings back, people at odds are named, and nothing that makes no sense is written."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import heatlas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import StorageError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.decisions.current import resolve
from heatlas.pipeline.decisions.decision import SCHEMA, Decision, decision_of
from heatlas.pipeline.decisions.decision_file import read_decision_file
from heatlas.pipeline.decisions.decision_log import read_decisions
from heatlas.pipeline.decisions.rle import checked_rle, decode_mask, encode_mask
from heatlas.pipeline.decisions.table_file import write_decisions
from heatlas.pipeline.decisions.ulid import new_ulids
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from ..support.scored_store import write_scores

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    """Eight images `img-0000 ...` with the classes ant and bee."""
    return write_scores(tmp_path / "store", {"ebpg": [0.5] * 8})


def at(minute, number, **values):
    return decision_of({"who": "ada", "when": BEGUN + timedelta(minutes=minute), "decision_id": f"D{number}", **values})


def test_decisions_are_written_once_and_read_back_whole(store):
    atlas = heatlas.open(store)
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    [first] = atlas.decide("img-0001", "relabel", label_name="bee", why="has wings", who="ada", round=2)
    atlas.decide(["img-0001", "img-0002"], kind="shortcut", mask=mask)
    rows = {(row["id"], row["kind"]): row for row in atlas.decisions().table().to_pylist()}
    assert set(rows) == {("img-0001", "relabel"), ("img-0001", "shortcut"), ("img-0002", "shortcut")}
    assert rows["img-0001", "relabel"]["decision_id"] == first.decision_id
    assert [rows["img-0001", "relabel"][name] for name in ("label_name", "who", "why", "round")] == [
        "bee",
        "ada",
        "has wings",
        2,
    ]
    assert np.array_equal(decode_mask(rows["img-0002", "shortcut"]["mask"]), mask)
    files = sorted((store / "decisions").glob("*.parquet"))
    assert len(files) == 2
    assert pq.read_schema(files[0]).equals(SCHEMA)
    assert files[0].stem == first.decision_id


def test_the_latest_of_a_kind_group_wins_and_undo_brings_the_one_before_back(store):
    atlas = heatlas.open(store)
    atlas.decide("img-0001", "relabel", label_name="bee")
    atlas.decide("img-0001", "drop")
    atlas.decide("img-0001", "core")
    assert [decision.kind for decision in atlas.decisions().current] == ["core", "drop"]
    drop = atlas.decisions().current[1]
    with pytest.raises(UsageError, match="'img-0001' has several decisions; name in `supersedes` which to undo"):
        atlas.decide("img-0001", "undo")
    [undo] = atlas.decide("img-0001", "undo", supersedes=drop.decision_id)
    assert [decision.kind for decision in atlas.decisions().current] == ["core", "relabel"]
    assert atlas.decisions().undone == 1
    atlas.decide("img-0001", "undo", supersedes=undo.decision_id)
    assert [decision.kind for decision in atlas.decisions().current] == ["core", "drop"]
    atlas.decide("img-0002", "unsure")
    atlas.decide("img-0002", "undo")
    assert {decision.id for decision in atlas.decisions().current} == {"img-0001"}
    with pytest.raises(UsageError, match="no decision about 'img-0002' to undo"):
        atlas.decide("img-0002", "undo")
    with pytest.raises(UsageError, match="supersedes 'X', which is no decision about it"):
        atlas.decide("img-0002", "ok", supersedes="X")


def test_two_people_at_odds_are_a_conflict_until_one_answers():
    log = [at(0, 1, id="a", kind="ok"), at(1, 2, id="a", kind="drop", who="bob")]
    [[winner, other]] = resolve(log).conflicts
    assert (winner.who, winner.kind, other.who) == ("bob", "drop", "ada")
    table = resolve(log).conflict_table()
    assert table["wins"].to_pylist() == [True, False]
    answered = [log[0], at(1, 2, id="a", kind="drop", who="bob", supersedes="D1")]
    assert resolve(answered).conflicts == ()
    for agreeing in (at(1, 2, id="a", kind="ok", who="bob"), at(1, 2, id="a", kind="drop"), at(1, 2, id="a", kind="core", who="bob"),
                     at(1, 2, id="a", kind="drop", who="bob", object_id="7")):  # fmt: skip
        assert resolve([log[0], agreeing]).conflicts == ()
    assert resolve([*log, at(2, 3, id="a", kind="undo", supersedes="D2")]).conflicts == ()


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["ok", "drop", "core", "undo"]), st.integers(0, 9)),
        max_size=12,
    )
)
def test_what_holds_is_what_a_slow_replay_holds(steps):
    """Undo of an undo included: a decision is dead while the number of undone undos above it says so."""
    log = []
    for number, (identity, kind, which) in enumerate(steps):
        own = [old for old in log if old.id == identity]
        if kind == "undo" and not own:
            continue
        supersedes = own[which % len(own)].decision_id if kind == "undo" else None
        log.append(at(number, number, id=identity, kind=kind, supersedes=supersedes))

    def dead(decision):
        return any(old.kind == "undo" and old.supersedes == decision.decision_id and not dead(old) for old in log)

    expected = {(old.id, old.group): old for old in log if old.kind != "undo" and not dead(old)}
    assert {(old.id, old.group): old for old in resolve(log).current} == expected


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "img-0001", "kind": "relable"}, r"has the kind 'relable'; did you mean 'relabel'\?; choose ok, relabel"),
        ({"id": "img-0001"}, "a decision needs a value for 'kind'"),
        ({"kind": "ok"}, "a decision needs a value for 'id'"),
        ({"id": "img-0001", "kind": "relabel"}, "does not say to which class: give --label, or a column or field label_name"),
        ({"id": "img-0001", "kind": "ok", "label_name": "bee"}, "only relabel has a class"),
        ({"id": "img-0001", "kind": "ok", "mask": {"size": [1, 1], "counts": "0"}}, "only shortcut and core have one"),
        ({"id": "img-0001", "kind": "ok", "why": 3}, "why of the decision about 'img-0001' must be text, got 3"),
        ({"id": "img-0001", "kind": "ok", "round": -1}, "round of the decision about 'img-0001' must be a whole number from 0 on"),
        ({"id": "img-0001", "kind": "ok", "source": "dream"}, "has the source 'dream'; choose view"),
        ({"id": "img-0001", "kind": "ok", "when": "yesterday"}, "must be a time as 2026"),
        ({"id": "img-0001", "kind": "ok", "when": "2026-01-01T10:00:00"}, "with its time zone"),
        ({"id": "img-0001", "kind": "ok", "reason": "x"}, "a decision has no field 'reason'"),
        ({"id": "img-9999", "kind": "ok"}, "1 of the ids are not in .*: 'img-9999'"),
        ({"id": "img-0001", "kind": "relabel", "label_name": "beee"}, r"names the class 'beee'; did you mean 'bee'\?"),
        ({"id": "img-0001", "kind": "ok", "target": 2}, "has target 2; the classes are 0 to 1"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_nothing_is_written(store, record, message):
    with pytest.raises(UsageError, match=message):
        heatlas.open(store).decide([{"id": "img-0003", "kind": "ok"}, record])
    assert read_decisions(str(store)) == []


def test_ids_and_mappings_do_not_mix(store):
    atlas = heatlas.open(store)
    with pytest.raises(UsageError, match="name what is decided with kind="):
        atlas.decide("img-0001")
    with pytest.raises(UsageError, match="not both"):
        atlas.decide([{"id": "img-0001", "kind": "ok"}], "drop")


def test_a_foreign_file_among_the_decisions_is_named(store):
    atlas = heatlas.open(store)
    atlas.decide("img-0001", "ok")
    (store / "decisions" / "notes.txt").write_text("mine")
    assert len(atlas.decisions().current) == 1
    pq.write_table(pa.table({"x": [1]}), store / "decisions" / "zzz.parquet")
    with pytest.raises(StorageError, match=r"cannot read the decisions in .*/zzz.parquet"):
        atlas.decisions()


def test_a_queue_with_decisions_filled_in_is_read(store, tmp_path, capsys):
    Image.fromarray(np.eye(6, dtype=np.uint8) * 255).save(tmp_path / "eye.png")
    table = tmp_path / "queue.csv"
    table.write_text(
        "id,target,reason,decision,why,mask\nimg-0001,1,odd,relabel:bee,wings,\nimg-0002,1,odd,,,\nimg-0003,,odd,keep,,\n"
        "img-0004,1.0,odd,shortcut,,eye.png\n"
    )
    assert main(["decide", str(store), "--from", str(table), "--who", "ada", "--round", "3"]) == 0
    said = capsys.readouterr().out
    assert "recorded 3 decisions; 1 row without a decision skipped" in said
    assert "3 decisions: 1 relabel, 1 ok, 1 shortcut" in said
    rows = {row["id"]: row for row in heatlas.open(store).decisions().table().to_pylist()}
    assert (rows["img-0001"]["label_name"], rows["img-0001"]["why"], rows["img-0001"]["source"]) == (
        "bee",
        "wings",
        "csv",
    )
    assert rows["img-0003"]["kind"] == "ok"
    assert np.array_equal(decode_mask(rows["img-0004"]["mask"]), np.eye(6, dtype=bool))
    assert {(row["who"], row["round"]) for row in rows.values()} == {("ada", 3)}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_that_was_written_is_read_back_the_same(store, tmp_path, ending):
    atlas = heatlas.open(store)
    mask = np.random.default_rng(0).random((9, 4)) < 0.5
    atlas.decide(["img-0001", "img-0005"], "core", mask=mask, why='a, "b"\nc')
    atlas.decide("img-0002", "relabel", label_name="ant")
    to = write_decisions(atlas.decisions(), str(tmp_path / f"decisions.{ending}"))
    read = read_decision_file(to, source="python").decisions
    assert [(d.id, d.content, d.why, d.who, d.when) for d in read] == [
        (d.id, d.content, d.why, d.who, d.when) for d in atlas.decisions().current
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,verdict\nimg-0001,ok\n", "has the columns id, verdict, but no `decision`"),
        ("id,decision\nimg-0001,okay\n", r"row 1 of .*: the decision about 'img-0001' has the kind 'okay'; did you mean 'ok'\?"),
        ("id,decision,mask\nimg-0001,core,../x.png\n", "row 1 of .*: mask '../x.png' must be the path of a PNG below"),
        ("id,decision,mask\nimg-0001,core,/etc/passwd\n", "must be the path of a PNG below"),
        ("id,decision,mask\nimg-0001,core,s3://b/x.png\n", "must be the path of a PNG below"),
        ("id,decision,mask\nimg-0001,core,gone.png\n", "cannot read the mask 'gone.png' as PNG"),
        ("id,decision,mask\nimg-0001,core,{]\n", "mask is not JSON"),
        ("id,decision,round\nimg-0001,ok,1.5\n", "round must be a whole number, got '1.5'"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused_with_its_row(tmp_path, text, message):
    (tmp_path / "file.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_decision_file(str(tmp_path / "file.csv"))


def test_a_mask_behind_a_link_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "secret.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in" / "file.csv").write_text("id,decision,mask\nimg-0001,core,link.png\n")
    with pytest.raises(UsageError, match="leads out of the folder"):
        read_decision_file(str(tmp_path / "in" / "file.csv"))


def test_bad_requests_exit_with_2(store, tmp_path, capsys):
    for arguments, message in (
        (["decide", str(store), "--from", "x.txt"], "let it end in .csv, .tsv"),
        (["decide", str(store), "--from", str(tmp_path / "gone.csv")], "cannot read"),
        (["decide", str(store), "--id", "img-0001"], "give both"),
        (["decide", str(store), "--id", "img-0001", "--kind", "drop", "--from", "x.csv"], "not both"),
        (["decide", str(store), "--out", "x.txt"], "let it end in .parquet"),
        (["decide", str(store), "--manifest", "x.txt"], "let it end in .csv"),
        (["decide", str(store), "--manifest", str(store / "x.csv")], "lies in the store"),
    ):
        assert main(arguments) == 2, arguments
        assert message in capsys.readouterr().err


def test_a_conflict_is_told(store, capsys):
    atlas = heatlas.open(store)
    atlas.decide("img-0001", "ok", who="ada")
    atlas.decide("img-0001", "drop", who="bob")
    assert main(["decide", str(store)]) == 0
    assert "conflict about img-0001: bob says drop (" in capsys.readouterr().out


def test_ulids_sort_by_time_and_do_not_repeat():
    first, second = new_ulids(1000), new_ulids(1000)
    assert sorted(first) == first
    assert len({*first, *second}) == 2000
    assert {len(ulid) for ulid in first} == {26}
    assert set("".join(first)) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert first[0][:9] == second[0][:9] or first[0] < second[0]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.03, 0.5, 1.0]))
def test_masks_survive_run_lengths_and_are_what_coco_says(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    rle = encode_mask(mask)
    assert np.array_equal(decode_mask(json.loads(json.dumps(rle))), mask)
    assert coco.area({"size": rle["size"], "counts": rle["counts"].encode()}) == mask.sum()
    assert rle["counts"] == coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])) != 0).tolist()
    plain = np.diff([0, *edges, flat.size]).tolist()
    assert checked_rle({"size": [height, width], "counts": plain}) == rle


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [4, 4]}, "run lengths as COCO has them"),
        ({"size": [4, 4], "counts": [8, 9]}, "add up to 17 pixels, not to 16"),
        ({"size": [4, 4], "counts": [20, -4]}, "must be at least 0, one is -4"),
        ({"size": [4, 4], "counts": "~~"}, "is not part of COCO's compressed run lengths"),
        ({"size": [4, 4], "counts": "P"}, "end amid a number"),
        ({"size": [4, 4], "counts": encode_mask(np.ones((40, 40), bool))["counts"]}, "add up to 1,600 pixels"),
        ({"size": [0, 4], "counts": ""}, "outside the limit"),
        ({"size": [10**6, 10**6], "counts": "0"}, "outside the limit"),
        ({"size": [4, 4], "counts": [1.5]}, "the counts of a mask are whole numbers"),
    ],
)
def test_run_lengths_that_do_not_fill_their_mask_are_refused(rle, message):
    with pytest.raises(UsageError, match=message):
        decode_mask(rle)


def test_a_decision_without_a_time_zone_of_its_own_is_stored_in_utc():
    assert decision_of({"id": "a", "kind": "ok", "when": "2026-01-01T12:00:00+02:00"}).when == datetime(
        2026, 1, 1, 10, tzinfo=UTC
    )
    assert Decision("a", "undo").group == ""
