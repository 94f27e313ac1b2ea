import dataclasses
from pathlib import Path

import heatlas
import numpy as np
import pyarrow as pa
import pytest
from heatlas.errors import NoRunError, StorageError, UsageError
from heatlas.pipeline.atlas import open_atlas
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.rows_to_table import area_average, build_table
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout

from ..support.stored_parts import put_part


@pytest.fixture
def atlas(place, make_store):
    make_store(place)
    return open_atlas(place)


def expected_map(make_row, number):
    return area_average(make_row(number).map, (6, 8)).astype(np.float16).astype(np.float32)


# --- tables


def test_whole_table_in_order_with_stored_types(atlas, layout):
    table = atlas.table()
    assert table["id"].to_pylist() == [f"img-{number:04d}" for number in range(20)]
    assert table.schema.field("map").type.list_size == 48
    assert table.schema.names == layout.schema().names
    assert len(atlas) == 20


def test_columns_and_condition(atlas):
    table = atlas.table(["drop_pct", "id"], where="drop_pct >= 17 OR status = 'decode_error' AND label = 0")
    assert table.to_pylist() == [
        {"drop_pct": None, "id": "img-0006"},
        {"drop_pct": 17.0, "id": "img-0017"},
        {"drop_pct": 18.0, "id": "img-0018"},
        {"drop_pct": 19.0, "id": "img-0019"},
    ]
    assert atlas.table(["id", "map"], where="id = 'nobody'").num_rows == 0
    assert atlas.table(["map"], where="label = 1").schema.field("map").type.value_type == pa.float16()


def test_pandas(atlas):
    frame = atlas.to_pandas(["id", "ebpg"], where="status = 'ok'")
    assert list(frame.columns) == ["id", "ebpg"]
    assert len(frame) == 18
    assert frame["ebpg"].isna().sum() == 4
    assert len(atlas.to_pandas()["map"][0]) == 48


def test_unknown_columns_get_a_hint(atlas):
    with pytest.raises(UsageError, match=r"unknown column 'ebgp'; did you mean 'ebpg'\?; the columns are id, uri"):
        atlas.table(["id", "ebgp"])


def test_a_wrong_condition_is_the_users_error(atlas):
    with pytest.raises(UsageError, match=r"DuckDB refuses 'ebgp > 1'.*ebgp"):
        atlas.table(["id"], where="ebgp > 1")


# --- maps


def test_maps_in_the_order_asked(atlas, make_row):
    maps = atlas.maps(["img-0015", "img-0002", "img-0015", "img-0003"])
    assert (maps.shape, maps.dtype) == ((4, 6, 8), np.float32)
    for entry, number in zip(maps, (15, 2, 15, 3), strict=True):
        assert np.array_equal(entry, expected_map(make_row, number))
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_all_maps_are_those_of_the_rows_that_have_one(atlas, make_row):
    maps = atlas.maps()
    ids = atlas.table(["id"], where="status = 'ok'")["id"].to_pylist()
    assert maps.shape == (18, 6, 8)
    assert np.array_equal(maps[ids.index("img-0019")], expected_map(make_row, 19))
    assert np.array_equal(maps, atlas.maps(ids))


def test_no_ids_and_one_id(atlas):
    assert atlas.maps([]).shape == (0, 6, 8)
    assert atlas.maps("img-0001").shape == (1, 6, 8)
    assert atlas.maps(iter(["img-0001"])).shape == (1, 6, 8)


def test_unknown_ids_are_named(atlas):
    with pytest.raises(UsageError, match=r"2 of the ids are not in this store: 'x', \"it's\";"):
        atlas.maps(["img-0001", "x", "it's"])


def test_ids_without_a_map_are_named_with_their_reason(atlas):
    with pytest.raises(UsageError, match=r"1 of the ids have no map: 'img-0006' \(decode_error: cannot identify"):
        atlas.maps(["img-0001", "img-0006"])


def test_ids_that_are_no_strings_are_refused(atlas):
    with pytest.raises(UsageError, match="ids are strings, got 3"):
        atlas.maps([3])


def test_ids_with_several_rows_are_named(tmp_path, make_row, layout):
    claim_run(str(tmp_path), {}, {})
    rows = [make_row(1), dataclasses.replace(make_row(1), target=2), make_row(2)]
    put_part(tmp_path, 0, build_table(rows, layout))
    atlas = open_atlas(tmp_path)
    with pytest.raises(UsageError, match=r"1 of the ids have several rows.*choose one with target=CLASS.*: 'img-0001'"):
        atlas.maps(["img-0001", "img-0002"])
    assert len(atlas.maps(["img-0001"], target=2)) == 1
    with pytest.raises(UsageError, match="have no row for the target 77"):
        atlas.maps(["img-0001"], target=77)


def test_a_store_without_maps_says_so(tmp_path, make_store):
    make_store(tmp_path, layout=StoreLayout((24, 32), with_map=False))
    atlas = open_atlas(tmp_path)
    assert "no maps" in repr(atlas)
    with pytest.raises(UsageError, match="stored no maps"):
        atlas.maps(["img-0001"])


# --- SQL


def test_sql_over_rows_and_classes(atlas):
    relation = atlas.sql(
        "SELECT name, count(*) AS n FROM atlas JOIN classes ON label = classes.index WHERE status = 'ok' GROUP BY name ORDER BY name"
    )
    assert relation.fetchall() == [("ant", 6), ("bee", 6), ("cat", 6)]
    assert relation.to_arrow_table().column_names == ["name", "n"]
    assert "filename" not in atlas.sql("SELECT * FROM atlas").columns


def test_sql_computes_with_maps(atlas, make_row):
    [(mean,)] = atlas.sql("SELECT list_avg(map) FROM atlas WHERE id = 'img-0004'").fetchall()
    assert mean == pytest.approx(expected_map(make_row, 4).mean(), abs=1e-6)


def test_a_relation_outlives_its_atlas(place, make_store):
    make_store(place)
    assert open_atlas(place).sql("SELECT count(*) FROM atlas").fetchall() == [(20,)]


def test_wrong_sql_is_the_users_error(atlas):
    with pytest.raises(UsageError, match=r"DuckDB refuses 'selekt 1'.*syntax error"):
        atlas.sql("selekt 1")
    with pytest.raises(UsageError, match="returns no rows; ask with SELECT"):
        atlas.sql("-- nothing")


# --- facts


def test_facts_of_the_run(atlas, place):
    assert atlas.run["settings"] == {"seed": 0}
    assert atlas.run["fingerprint"]["versions"]["heatlas"]
    assert atlas.class_names == ("ant", "bee", "cat")
    assert atlas.metadata["metrics"]["drop_pct"]["unit"] == "%"
    assert atlas.statuses() == {"ok": 18, "decode_error": 2}
    assert repr(atlas) == f"<Atlas {place}: 20 rows (18 ok, 2 decode_error), maps 6x8, drop_pct, ebpg>"


def test_without_class_names_classes_is_empty(tmp_path, make_store):
    make_store(tmp_path, layout=StoreLayout((24, 32)))
    assert open_atlas(tmp_path).sql("SELECT * FROM classes").fetchall() == []


def test_an_atlas_does_not_change_while_the_run_goes_on(tmp_path, make_store, make_row, layout):
    make_store(tmp_path, count=20, shard_size=6, order=[1, 3])
    atlas = open_atlas(tmp_path)
    put_part(tmp_path, 0, build_table([make_row(0)], layout))
    assert len(atlas) == 10
    assert atlas.table(["id"])["id"][0].as_py() == "img-0005"


def test_odd_directory_names(tmp_path, make_store):
    out = tmp_path / "run [1] * 'x' ?#%20é"
    make_store(out)
    assert len(heatlas.open(out)) == 20
    assert len(heatlas.open(f"file://{out}/")) == 20


def test_a_relative_path_with_a_slash_at_the_end(tmp_path, make_store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_store("out/")
    assert len(open_atlas("out/")) == len(open_atlas(Path("out"))) == 20


# --- what is no store


def test_no_run_and_no_shards_are_said(tmp_path):
    with pytest.raises(NoRunError, match=r"is not a heatlas store: it has no _run.json"):
        open_atlas(tmp_path / "nowhere")
    claim_run(str(tmp_path / "out"), {}, {})
    with pytest.raises(StorageError, match="has no finished shard yet"):
        open_atlas(tmp_path / "out")


def test_a_part_that_vanishes_is_named(tmp_path, make_store):
    make_store(tmp_path)
    atlas = open_atlas(tmp_path)
    (tmp_path / part_path(2)).unlink()
    with pytest.raises(StorageError, match=r"part-000002.parquet"):
        atlas.table(["id"])
    with pytest.raises(StorageError, match=r"part-000002.parquet"):
        atlas.statuses()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT nosuch FROM atlas",
        "SELECT id FROM heatlas_storred",
        "SELECT id FROM atlass",
        "SELECT id + map FROM atlas WHERE (",
        "SELECT (label + map) FROM atlas",
        "SELECT atlas.idd FROM atlas",
    ],
)
def test_refused_sql_names_no_table_of_ours(atlas, query):
    with pytest.raises(UsageError) as caught:
        atlas.sql(query)
    said = str(caught.value).replace(repr(query), "")
    assert "\n" not in said
    assert "LINE 1" not in said
    assert "heatlas_storred" in query or "heatlas_" not in said
    with pytest.raises(UsageError) as caught:
        atlas.table(["id"], where="nosuch > 1")
    assert "heatlas_" not in str(caught.value)
    assert "LINE 1" not in str(caught.value)
