"""A second store as a filter of `heatlas view`: other predictions, and differences of metrics, by class name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import heatlas
import numpy as np
import pytest
from heatlas.pipeline.view.serve import start_view

from ...support.reported_store import CLASSES, LAYOUT, write_reported
from ...support.view_client import Client

TURNED = (CLASSES[0], CLASSES[2], CLASSES[1])
"""The second store has the classes in another order: its 1 is called as the first store's 2."""
NEW = [0, 2, 1]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("second")
    turned = replace(LAYOUT, metadata={**LAYOUT.metadata, "class_names": list(TURNED)})
    first = write_reported(folder / "a", folder / "images", 60, both=True)
    return first, write_reported(folder / "b", folder / "images", 40, layout=turned)


@pytest.fixture(scope="module")
def client(stores: tuple[Path, Path]) -> Iterator[Client]:
    server = start_view(str(stores[0]), compare=str(stores[1]))
    yield Client(server)
    server.stop()


def rows_of(store: Path) -> dict[str, dict]:
    """The row that stands for each image."""
    rows = (
        heatlas.open(str(store))
        .table(["id", "label", "prediction", "target", "confidence", "ebpg", "status"])
        .to_pylist()
    )
    return {row["id"]: row for row in rows if row["target"] == row["prediction"]}


def found(client: Client, **chosen: object) -> set[str]:
    return set(client.arrow("rows", {"filter": chosen, "count": 500})[0]["id"].to_pylist())


def test_relations_compare_predictions_by_class_name(client: Client, stores: tuple[Path, Path]) -> None:
    first, second = map(rows_of, stores)
    both = {identity: row for identity, row in first.items() if identity in second}
    predicted = {
        identity: None if row["prediction"] is None else NEW[row["prediction"]] for identity, row in second.items()
    }
    same = {
        identity
        for identity, row in both.items()
        if row["prediction"] is not None and predicted[identity] == row["prediction"]
    }
    assert found(client, second="same prediction") == same
    assert found(client, second="not in the second") == set(first) - set(both)
    assert len(found(client, second="not in the second")) == 20
    differ = {identity for identity, row in both.items() if predicted[identity] != row["prediction"]}
    assert found(client, second="other prediction") == differ
    right = {
        identity
        for identity, row in first.items()
        if row["prediction"] is not None and row["prediction"] == row["label"]
    }
    also = {
        identity
        for identity, row in second.items()
        if row["prediction"] is not None and row["prediction"] == row["label"]
    }
    assert found(client, second="both correct") == right & also & set(both)


def test_differences_are_of_the_same_class_and_can_be_brushed_and_sorted(
    client: Client, stores: tuple[Path, Path]
) -> None:
    store = client.get("store")
    names = [column["name"] for column in store["columns"]]
    assert "delta_confidence" in names
    assert "delta_ebpg" in names
    opened = [column["name"] for column in store["columns"] if column["open"]]
    assert not {"delta_confidence", "delta_ebpg"} & set(opened)  # the second store says the same
    column = next(column for column in store["columns"] if column["name"] == "delta_ebpg")
    assert column["low"] == -column["high"]
    first, second = map(rows_of, stores)
    expected = {
        identity: second[identity]["ebpg"] - row["ebpg"]
        for identity, row in first.items()
        if identity in second
        and row["status"] == "ok" == second[identity]["status"]
        and NEW[second[identity]["target"]] == row["target"]
    }
    answer = client.json("select", {"filter": {}, "columns": ["delta_ebpg"]})
    assert sum(answer["histograms"]["delta_ebpg"]) == len(expected)
    table = client.arrow(
        "rows", {"filter": {"ranges": {"delta_ebpg": [None, None]}}, "sort": "delta_ebpg", "count": 500}
    )[0]
    assert set(table["id"].to_pylist()) == set(expected)
    values = [expected[identity] for identity in table["id"].to_pylist()]
    np.testing.assert_allclose(values, sorted(values))


def test_without_a_second_store_there_is_nothing_to_compare(stores: tuple[Path, Path]) -> None:
    server = start_view(str(stores[0]))
    try:
        client = Client(server)
        assert client.get("store")["relations"] == []
        assert "start with --compare" in client.error("select", {"filter": {"second": "both correct"}})
        assert "choose same prediction" in client.error("select", {"filter": {"second": "both"}})
    finally:
        server.stop()


def test_rows_and_images_are_counted_apart(client: Client, stores: tuple[Path, Path]) -> None:
    totals = client.json("select", {"filter": {"targets": "all"}})["totals"]
    assert (totals["rows"], totals["images"]) == (len(heatlas.open(str(stores[0]))), 60)
    totals = client.json("select", {"filter": {}})["totals"]
    assert (totals["rows"], totals["images"]) == (60, 60)


def test_a_row_is_found_in_any_order(client: Client) -> None:
    asked = {"filter": {"outcome": "wrong"}, "sort": "drop_pct", "descending": True}
    numbers = client.arrow("rows", {**asked, "count": 500})[0]["n"].to_pylist()
    assert [client.json("position", {**asked, "row": n})["position"] for n in numbers] == list(range(len(numbers)))
    right = client.arrow("rows", {"filter": {"outcome": "correct"}, "count": 1})[0]["n"].to_pylist()[0]
    assert client.json("position", {**asked, "row": right})["position"] is None
    other = client.arrow("rows", {"filter": {"targets": "all", "outcome": "wrong"}, "count": 500})[0].to_pylist()
    further = next(row for row in other if not row["main"])  # of a further explained class: its image stands there
    place = client.json("position", {**asked, "row": further["n"]})["position"]
    assert client.arrow("rows", {**asked, "count": 500})[0]["id"].to_pylist()[place] == further["id"]
    assert client.json("position", {**asked, "row": 10**6})["position"] is None
