"""Evaluations without a model: whose column it is, how rows are joined, what a request comes to."""

from __future__ import annotations

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from heatlas.errors import RunMismatchError, SettingsError, StorageError, UsageError
from heatlas.pipeline.atlas import open_atlas
from heatlas.pipeline.evaluate.request import notes, wanted_metrics
from heatlas.pipeline.evaluate.sink import MetricsSink
from heatlas.pipeline.evaluate.stored_maps import StoredMaps
from heatlas.pipeline.store import parquet_bytes, schema
from heatlas.pipeline.store.committed_shards import done_shards, read_part
from heatlas.pipeline.store.evaluation_status import evaluation_lines, evaluation_statuses
from heatlas.pipeline.store.evaluations import (
    Evaluation,
    claim_evaluation,
    column_owners,
    evaluation_name,
    list_evaluations,
    run_digest,
)
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.require_full_maps import refuse_reduced_maps
from heatlas.pipeline.store.run_file import read_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.samples import Sample, Shard

FACTS = {"gini": {"definition": "gini/v1", "unit": "1"}, "road": {"definition": "road/v1", "unit": "1"}}


def evaluation(name: str, *metrics: str, created: str = "2026-01-01") -> Evaluation:
    return Evaluation(name, created, {metric: {"definition": f"{metric}/v1"} for metric in metrics}, {})


def add(
    out: str, plan: list[Shard], metrics=FACTS, *, leave=(), only=lambda row: row.status == "ok", make_row
) -> Evaluation:
    """Claim and write an evaluation whose values are functions of the row's number."""
    entry = claim_evaluation(out, read_run(out), metrics, {"seed": 0})
    layout = StoreLayout(
        (24, 32), metrics=tuple(metrics), with_map=False, with_png=False, metadata={"metrics": dict(metrics)}
    )
    for shard in plan:
        rows = [make_row(number) for number in range(shard.start, shard.stop)]
        for number, row in zip(range(shard.start, shard.stop), rows, strict=True):
            row.metrics = {name: number + 0.25 * place for place, name in enumerate(metrics)}
        if shard.index not in leave:
            MetricsSink(out, entry.folder, layout).commit(shard, [row for row in rows if only(row)][::-1])
    return entry


# claims


def test_the_name_says_which_metrics_and_not_in_which_order():
    assert evaluation_name(["a/v1", "b/v1"]) == evaluation_name(["b/v1", "a/v1"])
    assert evaluation_name(["a/v1", "b/v1"]) != evaluation_name(["a/v1", "b/v2"])


def test_a_claim_is_made_once(place, make_store):
    make_store(place)
    first = claim_evaluation(place, read_run(place), FACTS, {"seed": 0})
    again = claim_evaluation(place, read_run(place), FACTS, {"seed": 0})
    assert (again.name, again.created) == (first.name, first.created)
    assert first.fingerprint["run"] == run_digest(read_run(place))
    assert [entry.name for entry in list_evaluations(place)] == [first.name]
    with pytest.raises(
        RunMismatchError, match=r"gini, road of .* were begun differently:\n  seed: stored 0, now 1\n"
    ) as caught:
        claim_evaluation(place, read_run(place), FACTS, {"seed": 1})
    assert f"delete {place}/{first.folder}" in str(caught.value)


def test_racing_claims_agree(place, make_store):
    make_store(place)
    with ThreadPoolExecutor(8) as pool:
        result = list(pool.map(lambda _: claim_evaluation(place, read_run(place), FACTS, {}).created, range(16)))
    assert len(set(result)) == 1


def test_a_store_without_evaluations_has_none(place, make_store):
    make_store(place)
    assert list_evaluations(place) == []
    assert evaluation_statuses(place, 4) == []


def test_strange_folders_are_no_evaluations(tmp_path, make_store):
    make_store(tmp_path)
    (tmp_path / "metrics" / "mine").mkdir(parents=True)
    (tmp_path / "metrics" / "notes.txt").write_text("hello")
    assert list_evaluations(str(tmp_path)) == []


def test_the_oldest_claim_of_a_column_wins_and_the_run_before_it():
    old, young = evaluation("b", "gini", "road"), evaluation("a", "road", "adcc", created="2026-01-02")
    assert column_owners([old, young], ["gini"]) == {"road": old, "adcc": young}


# requests


def test_a_request_is_sorted():
    begun = evaluation("a", "road", "entropy")
    wanted = wanted_metrics(["standard", "road", "road"], ["drop_pct/v1", "ebpg/v1"], [begun])
    assert wanted.stored == ["drop_pct", "ebpg"]
    assert wanted.begun == [begun]
    assert wanted.left_out == ["layer_agreement"]
    assert {"gini", "increase"} <= set(wanted.new)
    assert not {"road", "entropy", "drop_pct", "layer_agreement"} & set(wanted.new)
    assert notes(wanted) == {
        "drop_pct, ebpg": "stored by the run itself",
        "layer_agreement": "left out, because a store does not hold the maps of the block layers",
    }


def test_what_the_run_stored_needs_no_block_maps_any_more():
    wanted = wanted_metrics(["layer_agreement"], ["layer_agreement/v1"], [])
    assert (wanted.stored, wanted.new) == (["layer_agreement"], [])


@pytest.mark.parametrize(
    ("asked", "own", "error", "text"),
    [
        (["gini", "rod"], [], SettingsError, r"unknown metric 'rod'; did you mean 'road'\?"),
        ([], [], SettingsError, "no metric is asked for; give presets"),
        (["layer_agreement"], [], UsageError, "which a store does not hold"),
        (["gini"], ["gini/v7"], RunMismatchError, "the store holds gini/v7, this heatlas computes gini/v1"),
    ],
)
def test_requests_that_cannot_be_met(asked, own, error, text):
    with pytest.raises(error, match=text):
        wanted_metrics(asked, own, [])


def test_what_was_begun_must_mean_the_same_in_all_its_columns():
    begun = Evaluation("a", "2026", {"gini": {"definition": "gini/v1"}, "road": {"definition": "road/v0"}}, {})
    with pytest.raises(RunMismatchError, match="the store holds road/v0"):
        wanted_metrics(["gini"], [], [begun])


# joined


def test_rows_get_their_values_whatever_the_order_in_the_files(place, make_store, make_row):
    plan = make_store(place)
    add(place, plan, leave=[2], make_row=make_row)
    atlas = open_atlas(place)
    numbers = [int(identity[4:]) for identity in atlas.table(["id"])["id"].to_pylist()]
    assert numbers == list(range(20)), "in stored order"
    expected = [None if number % 7 == 6 or plan[2].start <= number < plan[2].stop else number for number in numbers]
    assert atlas.table(["gini"])["gini"].to_pylist() == expected
    assert atlas.table(["road", "drop_pct"])["road"].to_pylist() == [
        None if entry is None else entry + 0.25 for entry in expected
    ]
    from_sql = atlas.sql("SELECT id, gini FROM atlas ORDER BY id").fetchall()
    assert [value for _, value in from_sql] == expected
    assert atlas.to_pandas()["gini"].notna().sum() == sum(entry is not None for entry in expected)
    assert atlas.table(["gini"], where="gini >= 3 AND gini < 8")["gini"].to_pylist() == [3, 4, 5, 7]
    assert len(atlas) == 20


def test_columns_stand_behind_the_run_s_metrics_with_their_meaning(place, make_store, make_row):
    add(place, make_store(place), make_row=make_row)
    atlas = open_atlas(place)
    assert list(schema.metric_columns(atlas.schema)) == ["drop_pct", "ebpg", "gini", "road"]
    assert atlas.schema.names == atlas.sql("SELECT * FROM atlas LIMIT 0").columns
    assert atlas.table().schema.names == atlas.schema.names
    assert atlas.metadata["metrics"]["road"] == FACTS["road"]
    assert atlas.metadata["metrics"]["ebpg"]["definition"] == "ebpg/v1"


def test_an_evaluation_without_a_part_is_a_column_of_nulls(place, make_store, make_row):
    add(place, make_store(place), leave=range(4), make_row=make_row)
    atlas = open_atlas(place)
    assert atlas.table(["gini"])["gini"].null_count == 20
    assert atlas.sql("SELECT count(*), count(road) FROM atlas").fetchall() == [(20, 0)]


def test_columns_of_the_run_are_not_shadowed(place, make_store, make_row):
    facts = {"ebpg": {"definition": "ebpg/v1"}, "gini": FACTS["gini"]}
    before = open_atlas(place).table(["ebpg"])["ebpg"].to_pylist() if make_store(place) else []
    add(place, open_plan(place), facts, make_row=make_row)
    assert open_atlas(place).table(["ebpg"])["ebpg"].to_pylist() == before
    assert open_atlas(place).sql("SELECT sum(ebpg) FROM atlas").fetchall() == [(sum(filter(None, before)),)]


def open_plan(place: str) -> list[Shard]:
    sizes = [read_part(place, index, ["id"]).num_rows for index in done_shards(place)]
    edges = np.cumsum([0, *sizes]).tolist()
    return [Shard(index, edges[index], edges[index + 1]) for index in range(len(sizes))]


def test_a_column_that_was_claimed_twice_is_read_from_the_older(place, make_store, make_row):
    plan = make_store(place)
    older = add(place, plan, {"gini": FACTS["gini"]}, leave=[0], make_row=make_row)
    add(place, plan, {"road": FACTS["road"], "gini": FACTS["gini"]}, make_row=make_row)
    atlas = open_atlas(place)
    values = dict(zip(atlas.table(["id"])["id"].to_pylist(), atlas.table(["gini"])["gini"].to_pylist(), strict=True))
    assert values["img-0007"] == 7, "not 7.25, which the younger says"
    assert values["img-0001"] is None, "the older has not come so far, and the two are not mixed"
    assert older.name in [entry.name for entry in list_evaluations(place)]


def test_rows_of_one_image_are_told_apart_by_their_target(tmp_path, make_store, make_row, layout):
    """Nothing writes two targets of one image yet; the join is ready for it."""
    out = str(tmp_path)
    [shard] = make_store(tmp_path, count=1, shard_size=1, order=[])
    rows = [dataclasses.replace(make_row(1), target=target) for target in (0, 2, 1)]
    ParquetSink(out, layout).commit(shard, rows)
    entry = claim_evaluation(out, read_run(out), {"gini": FACTS["gini"]}, {})
    added = StoreLayout((24, 32), metrics=("gini",), with_map=False, with_png=False)
    measured = [dataclasses.replace(row, metrics={"gini": 10.0 * row.target}) for row in rows]
    MetricsSink(out, entry.folder, added).commit(shard, measured[:2])
    atlas = open_atlas(out)
    assert atlas.table(["target", "gini"]).to_pylist() == [
        {"target": 0, "gini": 0.0}, {"target": 2, "gini": 20.0}, {"target": 1, "gini": None},
    ]  # fmt: skip
    assert sorted(atlas.sql("SELECT target, gini FROM atlas").fetchall()) == [(0, 0.0), (1, None), (2, 20.0)]


# the part files


def test_a_file_is_replaced_only_where_that_is_meant(tmp_path, make_store, make_row):
    plan = make_store(tmp_path)
    entry = add(str(tmp_path), plan, {"gini": FACTS["gini"]}, make_row=make_row)
    layout = StoreLayout((24, 32), metrics=("gini",), with_map=False, with_png=False)
    row = dataclasses.replace(make_row(1), metrics={"gini": 77.0})
    assert not MetricsSink(str(tmp_path), entry.folder, layout).commit(plan[0], [row])
    assert read_part(str(tmp_path), 0, folder=entry.folder).num_rows == 5
    assert MetricsSink(str(tmp_path), entry.folder, layout, frozenset({0})).commit(plan[0], [row])
    assert read_part(str(tmp_path), 0, folder=entry.folder)["gini"].to_pylist() == [77.0]


def test_a_failed_measurement_says_why(tmp_path, make_store, make_row):
    plan = make_store(tmp_path)
    entry = add(str(tmp_path), plan, only=lambda row: True, make_row=make_row)
    [record] = evaluation_statuses(str(tmp_path), len(plan))
    assert (record.rows, record.statuses) == (20, {"decode_error": 2, "ok": 18})
    assert record.metrics["gini"].count == 18
    assert not record.complete
    lines = dict(evaluation_lines(record))
    assert lines["added"] == "2 metrics (decode_error 2, ok 18), 4 of 4 shards, not complete"
    assert lines[""].startswith("2 x decode_error: cannot identify")
    assert read_part(str(tmp_path), 0, ["gini"], entry.folder)["gini"].null_count == 0
    assert read_part(str(tmp_path), 1, ["status", "gini"], entry.folder).to_pylist()[3] == {
        "status": "decode_error",
        "gini": None,
    }


# stored maps


@pytest.fixture
def whole_maps(tmp_path, monkeypatch, make_store, layout):
    """A store with whole maps, two rows in a row group, and a worker's view of it."""
    monkeypatch.setattr(parquet_bytes, "ROW_GROUP_BYTES", 4000)
    make_store(tmp_path, layout=dataclasses.replace(layout, map_size="input", with_png=False))
    return pickle.loads(pickle.dumps(StoredMaps(str(tmp_path))))


def stored_sample(number: int, shard_size: int = 5) -> Sample:
    return Sample(f"img-{number:04d}", "", explained_in=number // shard_size)


def test_explanations_come_back_as_stored(whole_maps, make_row):
    for number in (0, 1, 7, 3, 19, 2):
        [result], row = whole_maps.of(stored_sample(number)), make_row(number)
        assert (result.status, result.prediction, result.target, result.confidence) == (
            "ok",
            row.prediction,
            row.target,
            row.confidence,
        )
        assert np.array_equal(result.map.numpy(), row.map.astype(np.float16).astype(np.float32))


def test_several_threads_get_each_their_own(whole_maps, make_row):
    numbers = [number for number in range(20) if number % 7 != 6] * 3
    with ThreadPoolExecutor(4) as pool:
        result = list(pool.map(lambda number: whole_maps.of(stored_sample(number)), numbers))
    for number, [entry] in zip(numbers, result, strict=True):
        assert np.array_equal(entry.map.numpy(), make_row(number).map.astype(np.float16).astype(np.float32))


def test_a_row_without_a_map_is_no_explanation(whole_maps):
    assert whole_maps.of(stored_sample(6)) == []


def test_a_row_that_is_not_there_is_the_store_s_fault(whole_maps):
    with pytest.raises(StorageError, match=r"part-000001\.parquet has no row of 'img-0000'"):
        whole_maps.of(Sample("img-0000", "", explained_in=1))
    with pytest.raises(StorageError, match="nobody said in which shard"):
        whole_maps.of(Sample("img-0000", ""))
    with pytest.raises(StorageError, match=r"part-000009\.parquet"):
        whole_maps.of(Sample("img-0000", "", explained_in=9))


@pytest.mark.parametrize(
    ("store", "text"),
    [
        ({"map": True, "map_size": "input", "map_png": True}, None),
        ({"map": True, "map_size": 32, "map_png": False}, None),
        ({"map": True, "map_size": 31, "map_png": False}, "its maps at 23x31, the network's input is 24x32: metrics need the whole map; explain"),
        ({"map": False, "map_size": "input", "map_png": True}, "no maps as numbers: metrics need the whole map, and the 8-bit PNG"),
    ],
)  # fmt: skip
def test_only_whole_maps_are_measured(store, text):
    run = {"fingerprint": {"preprocess": {"size": [24, 32]}}, "settings": {"store": store}}
    if text is None:
        return refuse_reduced_maps("out", run)
    with pytest.raises(UsageError, match=f"out stored {text}"):
        refuse_reduced_maps("out", run)
    return None
