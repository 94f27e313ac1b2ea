"""The server of `heatlas view` answers what DuckDB answers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import heatlas
import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.view.filters import parse_filter
from heatlas.pipeline.view.serve import start_view
from PIL import Image

from ...support.reported_store import HOSTILE_CLASS, HOSTILE_IDS, write_reported
from ...support.view_client import Client


def ids(store: Path, where: str) -> list[str]:
    """What SQL over the store's own files finds, one row per image."""
    rows = heatlas.open(str(store)).sql(
        f"SELECT DISTINCT id FROM atlas WHERE (target = prediction OR target IS NULL) AND ({where}) ORDER BY id"
    )
    return [row[0] for row in rows.fetchall()]


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "true"),
    ({"ranges": {"ebpg": [None, 0.3]}}, "ebpg < 0.3"),
    ({"ranges": {"ebpg": [0.3, None], "drop_pct": [10, 30]}}, "ebpg >= 0.3 AND drop_pct >= 10 AND drop_pct < 30"),
    ({"label": [1, 2]}, "label IN (1, 2)"),
    ({"prediction": [0]}, "prediction = 0"),
    ({"status": ["decode_error"]}, "status = 'decode_error'"),
    ({"outcome": "wrong"}, "prediction <> label"),
    ({"outcome": "off-object"}, "prediction = label AND ebpg < 0.1"),
    ({"text": "IMAGE-000"}, "id ILIKE '%image-000%'"),
    ({"text": "' OR 1=1 --"}, "false"),
    ({"sql": "drop_pct > 50 -- and a comment"}, "drop_pct > 50"),
    ({"sql": "n_components = 2", "label": [0]}, "n_components = 2 AND label = 0"),
]


@pytest.mark.parametrize(("chosen", "where"), FILTERS)
def test_filters_equal_sql_over_the_files(client: Client, store: Path, chosen: dict[str, Any], where: str) -> None:
    table, headers = client.arrow("rows", {"filter": chosen, "sort": "id", "count": 500})
    expected = ids(store, where)
    assert table["id"].to_pylist() == expected
    assert int(headers["x-heatlas-total"]) == len(expected)
    counts = client.json("select", {"filter": chosen, "columns": ["ebpg"]})
    assert counts["totals"]["rows"] == len(expected)


def test_a_histogram_ignores_its_own_range_and_follows_the_others(client: Client, store: Path) -> None:
    chosen = {"ranges": {"ebpg": [None, 0.3], "drop_pct": [None, 20]}}
    result = client.json("select", {"filter": chosen, "columns": ["ebpg", "drop_pct", "n_components"]})["histograms"]
    assert sum(result["ebpg"]) == len(ids(store, "drop_pct < 20"))
    assert sum(result["drop_pct"]) == len(ids(store, "ebpg < 0.3"))
    assert sum(result["n_components"]) == len(ids(store, "ebpg < 0.3 AND drop_pct < 20"))
    assert result["n_components"] == [len(ids(store, f"ebpg < 0.3 AND drop_pct < 20 AND n_components = {count}")) for count in (1, 2, 3)]  # fmt: skip


def test_rows_without_a_value_stand_in_no_bin(client: Client, store: Path) -> None:
    counts = client.json("select", {"filter": {}, "columns": ["ebpg"]})["histograms"]["ebpg"]
    assert sum(counts) == len(ids(store, "ebpg IS NOT NULL")) < len(ids(store, "true"))


def test_orders_are_those_of_sql_and_missing_values_come_last(client: Client, store: Path) -> None:
    table, _ = client.arrow("rows", {"filter": {}, "sort": "drop_pct", "descending": True, "count": 500})
    values = table["drop_pct"].to_pylist()
    present = [value for value in values if value is not None]
    assert present == sorted(present, reverse=True)
    assert values[len(present) :] == [None] * len(ids(store, "drop_pct IS NULL"))
    later, _ = client.arrow("rows", {"filter": {}, "sort": "drop_pct", "descending": True, "start": 7, "count": 5})
    assert later["id"].to_pylist() == table["id"].to_pylist()[7:12]


def test_classes_are_counted(client: Client, store: Path) -> None:
    for row in client.json("select", {"filter": {}, "columns": [], "classes": True})["classes"]:
        assert row["rows"] == len(ids(store, f"label = {row['label']}"))
        assert row["correct"] == len(ids(store, f"label = {row['label']} AND prediction = label"))
        assert row["off_object"] == len(ids(store, f"label = {row['label']} AND prediction = label AND ebpg < 0.1"))


def test_all_explained_classes_can_be_seen(client: Client, store: Path) -> None:
    _, headers = client.arrow("rows", {"filter": {"targets": "all"}, "count": 1})
    assert int(headers["x-heatlas-total"]) == len(heatlas.open(str(store)))


def test_maps_are_the_stored_ones(client: Client, store: Path) -> None:
    table, _ = client.arrow("rows", {"filter": {}, "count": 40})
    numbers = table["n"].to_pylist()
    status, headers, content = client.post("maps", {"rows": numbers})
    assert status == 200
    shape = (int(headers["x-heatlas-height"]), int(headers["x-heatlas-width"]))
    pixels = np.frombuffer(content, np.uint8).reshape(len(numbers), *shape)
    for at, row in enumerate(table.to_pylist()):
        assert headers["x-heatlas-present"][at] == ("1" if row["status"] == "ok" else "0")
        if row["status"] == "ok":
            stored = heatlas.open(str(store)).maps([row["id"]], target=row["target"])[0]
            assert np.abs(pixels[at] / 255 - stored).max() <= 1 / 255


def test_images_come_through_the_runs_own_reader(client: Client) -> None:
    status, headers, content = client.send("GET", "api/view/0")
    assert (status, headers["content-type"]) == (200, "image/webp")
    assert Image.open(io.BytesIO(content)).size == (24, 24)


def test_an_image_that_is_gone_is_said(tmp_path: Path) -> None:
    out = write_reported(tmp_path / "out", tmp_path / "images", 12)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    server = start_view(str(out))
    try:
        status, _, content = Client(server).send("GET", "api/thumbnail/0")
        assert status == 404
        assert "cannot read" in json.loads(content)["error"]
    finally:
        server.stop()


def test_hostile_ids_travel_as_they_are(client: Client) -> None:
    for identity in HOSTILE_IDS:
        table, _ = client.arrow("rows", {"filter": {"text": identity}})
        assert identity in table["id"].to_pylist()
        detail = json.loads(client.send("GET", f"api/detail/{table['n'][0].as_py()}")[2])
        assert detail["id"] in HOSTILE_IDS


def test_a_select_is_answered_as_arrow(client: Client, store: Path) -> None:
    table, headers = client.arrow(
        "sql", {"query": "SELECT label, avg(ebpg) AS mean FROM items WHERE main GROUP BY label ORDER BY label"}
    )
    assert headers["content-type"] == "application/vnd.apache.arrow.stream"
    expected = (
        heatlas.open(str(store))
        .sql("SELECT avg(ebpg) FROM atlas WHERE target = prediction OR target IS NULL GROUP BY label ORDER BY label")
        .fetchall()
    )
    assert table["mean"].to_pylist() == pytest.approx([row[0] for row in expected])


def test_a_port_that_is_taken_and_one_that_is_none(store: Path, client: Client) -> None:
    with pytest.raises(UsageError, match=r"cannot be used.*leave --port out"):
        start_view(str(store), port=client.port)
    with pytest.raises(UsageError, match="from 0 to 65535, got 70000"):
        start_view(str(store), port=70000)


def test_no_filter_means_one_row_per_image() -> None:
    assert parse_filter({}, ()).condition().sql == "main"
    assert parse_filter({"targets": "all"}, ()).condition().sql == "true"


def test_similar_explanations_put_their_mass_in_the_same_place(client: Client, store: Path) -> None:
    table, _ = client.arrow("rows", {"filter": {"status": ["ok"]}, "count": 60})
    place_of = dict(zip(table["n"].to_pylist(), table["border_share"].to_pylist(), strict=True))
    first = next(n for n, share in place_of.items() if share == 0.9)
    answer = client.json("nearest", {"row": first, "by": "map"})
    result = answer["rows"]
    assert len(result) == 12
    assert answer["searched"] == len(ids(store, "status = 'ok'"))
    assert first not in [row["n"] for row in result]
    assert {place_of[row["n"]] for row in result} == {0.9}
    assert all(row["similarity"] == pytest.approx(1, abs=0.01) for row in result)
    failed, _ = client.arrow("rows", {"filter": {"status": ["decode_error"]}})
    assert "has no map" in client.error("nearest", {"row": failed["n"][0].as_py(), "by": "map"})
    assert "got 'features'" in client.error("nearest", {"row": first, "by": "features"})


def test_the_mean_map_of_a_class_is_that_of_its_maps(client: Client, store: Path) -> None:
    status, headers, content = client.send("GET", "api/class_mean/1")
    assert status == 200
    shape = (int(headers["x-heatlas-height"]), int(headers["x-heatlas-width"]))
    atlas = heatlas.open(str(store))
    rows = atlas.sql(
        "SELECT id, target FROM atlas WHERE status = 'ok' AND label = 1 AND target = prediction"
    ).fetchall()
    mean = np.mean([atlas.maps([identity], target=target)[0] for identity, target in rows], axis=0)
    assert np.abs(np.frombuffer(content, np.uint8).reshape(shape) / 255 - mean / mean.max()).max() < 0.01
    assert client.send("GET", "api/class_mean/77")[0] == 400


def test_a_store_opened_in_python_is_viewed_and_linked(tmp_path: Path) -> None:
    store = write_reported(tmp_path / "out", tmp_path / "images", 12)
    atlas = heatlas.open(str(store))
    assert "<a" not in atlas._repr_html_()
    server = atlas.view()
    try:
        atlas.view().stop()  # another one, which has gone
        assert f'href="{server.url}"' in heatlas.open(str(store))._repr_html_()
        assert Client(server).send("GET", "api/store")[0] == 200
        assert f'href="{server.url}"' in server._repr_html_()
        assert server.url not in repr(server)
    finally:
        server.stop()
    assert "<a" not in atlas._repr_html_()


def test_a_second_store_is_shown_beside_the_first(store: Path, tmp_path: Path) -> None:
    other = write_reported(tmp_path / "other", tmp_path / "images", 30)
    server = start_view(str(store), compare=str(other))
    try:
        client = Client(server)
        assert json.loads(client.send("GET", "api/store")[2])["other"] == str(other)
        table, _ = client.arrow("rows", {"filter": {}, "sort": "id", "count": 60})
        shared = set(heatlas.open(str(other)).table(["id"])["id"].to_pylist())
        for row in table.to_pylist()[::7]:
            result = json.loads(client.send("GET", f"api/second/{row['n']}")[2])
            assert (result is not None) == (row["id"] in shared)
            if result and result["status"] == "ok":
                status, headers, content = client.send("GET", f"api/second_map/{result['n']}")
                assert status == 200
                assert len(content) == int(headers["x-heatlas-height"]) * int(headers["x-heatlas-width"])
                assert result["prediction"] == ["ant", HOSTILE_CLASS, "cat\u202etac"][row["prediction"]]
    finally:
        server.stop()


def test_without_a_second_store_none_is_answered(client: Client) -> None:
    assert json.loads(client.send("GET", "api/second/0")[2]) is None
    assert client.send("GET", "api/second_map/0")[0] == 400
