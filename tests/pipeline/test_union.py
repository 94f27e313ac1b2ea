"""Several stores opened as one: the rows of all, each once, and a refusal where they would mean different things."""

from __future__ import annotations

import json
from dataclasses import replace

import heatlas
import numpy as np
import pyarrow as pa
import pytest
from heatlas.errors import RunMismatchError, UsageError
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.compact import compact_store
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.plan_files import plan_facts
from heatlas.pipeline.store.run_file import claim_run

from .conftest import LAYOUT, synthetic_row

FACTS = {"model": {"digest": "m", "logits": [1.0, 2.0]}, "method": "sise", "preprocess": {"size": [24, 32]}}


def write(out, prefix, count=11, *, layout=LAYOUT, extra=(), **facts):
    """A store of `count` rows whose ids begin with `prefix`."""
    plan = plan_shards(count, 4)
    claim_run(str(out), {**FACTS, "plan": plan_facts(str(out), count, plan), **facts}, {"seed": 0, "data": str(out)})
    for shard in plan:
        rows = [synthetic_row(number) for number in range(shard.start, shard.stop)]
        for row in rows:
            row.sample = replace(row.sample, id=f"{prefix}{row.sample.id}", extra=extra)
        ParquetSink(str(out), layout).commit(shard, rows)
    return str(out)


@pytest.fixture
def two(tmp_path):
    """Two stores; `b` has a column of its own."""
    first = write(tmp_path / "a", "a-")
    second = write(tmp_path / "b", "b-", 9, layout=replace(LAYOUT, extra=(("site", "string"),)), extra=(("site", "x"),))
    return first, second


def test_rows_of_all_stores_stand_behind_each_other(two):
    union, singles = heatlas.open(two), [heatlas.open(place) for place in two]
    rows = [{**row, "site": row.get("site")} for atlas in singles for row in atlas.table().to_pylist()]
    assert len(union) == len(rows) == 20
    assert union.table().to_pylist() == rows
    assert union.table(["site"])["site"].to_pylist() == [None] * 11 + ["x"] * 9
    assert np.array_equal(union.maps(), np.concatenate([atlas.maps() for atlas in singles]))
    ids = ["b-img-0003", "a-img-0000", "b-img-0000"]
    expected = np.stack([singles[i[0] == "b"].maps([i])[0] for i in ids])
    assert np.array_equal(union.maps(ids), expected)
    assert pa.concat_tables(union.batches(["id"])).num_rows == 20
    assert union.statuses() == {"ok": 18, "decode_error": 2}


def test_conditions_and_sql_speak_of_all_rows_together(two):
    union = heatlas.open(two)
    frame = union.to_pandas(["id", "drop_pct"])
    above = frame[frame["drop_pct"] > frame["drop_pct"].mean()]["id"].tolist()
    assert union.table(["id"], where="drop_pct > (SELECT avg(drop_pct) FROM atlas)")["id"].to_pylist() == above
    assert union.count("drop_pct > 5") == int((frame["drop_pct"] > 5).sum())
    assert union.sql("SELECT count(*), count(site) FROM atlas").fetchall() == [(20, 9)]
    assert set(union.sql("SELECT * FROM atlas LIMIT 0").columns) == set(union.schema.names)
    assert union.sql("SELECT class_name(1)").fetchall() == [("bee",)]


def test_what_is_made_of_the_rows_is_made_of_all(two, tmp_path):
    union = heatlas.open(two)
    means = {row["metric"]: (row["mean"], row["n"]) for row in union.summary(resamples=10).to_pylist()}
    frame = union.to_pandas(["drop_pct"])
    assert means["drop_pct"] == (pytest.approx(frame["drop_pct"].mean()), int(frame["drop_pct"].count()))
    assert union.export("csv", tmp_path / "rows.csv").rows == 20
    assert union.export("cleanlab", tmp_path / "rows.parquet").rows == 20
    assert "20" in union._repr_html_()
    assert union.curate(["no_evidence"], params=["drop=5"]).num_rows == int((frame["drop_pct"] >= 5).sum())
    with pytest.raises(UsageError, match=r"verify belongs to one store; open .*a, .*b one by one"):
        union.verify()
    with pytest.raises(UsageError, match="export to coco belongs to one store"):
        union.export("coco", tmp_path / "rows.json")


def test_a_member_may_be_compacted_while_it_is_open(two):
    union = heatlas.open(two)
    before = union.table().to_pylist()
    compact_store(two[1], size_mb=1)
    assert union.maps(["b-img-0001"]).shape == (1, *before_shape(union))
    assert union.table().to_pylist() == before


def before_shape(atlas):
    return atlas.metadata["map"]["height"], atlas.metadata["map"]["width"]


def test_shared_ids_are_refused_with_their_names(two, tmp_path):
    third = write(tmp_path / "c", "b-", 5)
    with pytest.raises(RunMismatchError, match=r"5 ids are in more than one of .*, such as 'b-img-0000'"):
        heatlas.open([*two, third])


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"model": {"digest": "other", "logits": [1.0, 2.0]}}, 'model.digest: the first has "m", the second "other"'),
        ({"model": {"digest": "m", "logits": [1.0, 2.5]}}, "model.logits"),
        ({"method": "rise"}, 'method: the first has "sise", the second "rise"'),
        ({"preprocess": {"size": [24, 33]}}, "preprocess.size"),
        ({"seed": 4}, "seed"),
    ],
)
def test_stores_of_other_models_or_methods_are_not_mixed(two, tmp_path, facts, text):
    other = write(tmp_path / "c", "c-", 5, **facts)
    with pytest.raises(RunMismatchError) as caught:
        heatlas.open([two[0], other])
    assert text in str(caught.value)
    assert "one by one" in str(caught.value)


@pytest.mark.parametrize("facts", [{"forward": "cuda_graph"}, {"batch_size": 7}, {"versions": {"torch": "9"}}])
def test_what_changes_last_bits_may_differ(two, tmp_path, facts):
    """A trial chooses forward and batch size for the device of the day."""
    assert len(heatlas.open([two[0], write(tmp_path / "c", "c-", 5, **facts)])) == 16


def test_other_definitions_maps_and_classes_are_not_mixed(two, tmp_path):
    facts = json.loads(json.dumps(LAYOUT.metadata))
    facts["metrics"]["ebpg"]["definition"] = "ebpg/v2"
    layouts = {
        "metric ebpg: ebpg/v1 and ebpg/v2": replace(LAYOUT, metadata=facts),
        "map.height": replace(LAYOUT, map_size=4),
        "class names": replace(LAYOUT, metadata={**LAYOUT.metadata, "class_names": ["bee", "ant", "cat"]}),
    }
    for number, (text, layout) in enumerate(layouts.items()):
        other = write(tmp_path / f"other-{number}", f"o{number}-", 5, layout=layout)
        with pytest.raises(RunMismatchError) as caught:
            heatlas.open([two[0], other])
        assert text in str(caught.value)


def test_a_store_given_twice_and_none_are_refused(two, tmp_path):
    (tmp_path / "link").symlink_to(two[0])
    for places in ([two[0], two[0]], [two[0], tmp_path / "link"], [two[0], f"{two[1]}/../a"]):
        with pytest.raises(UsageError, match="is given 2 times"):
            heatlas.open(places)
    with pytest.raises(UsageError, match="no store is given"):
        heatlas.open([])
    assert len(heatlas.open([two[0]])) == 11


def test_stores_behind_fsspec_are_read_together(memory_uri, tmp_path):
    places = [write(f"{memory_uri}/a", "a-"), write(tmp_path / "b", "b-")]
    union = heatlas.open(places)
    assert union.table(["id"], where="id LIKE '%0003'")["id"].to_pylist() == ["a-img-0003", "b-img-0003"]
    assert union.maps(["b-img-0001", "a-img-0001"]).shape[0] == 2
