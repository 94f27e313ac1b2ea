"""Decisions made in `heatlas view`: files that the one reader reads, undone, refused, kept by many pages at once."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import heatlas
import numpy as np
import pytest
from heatlas.pipeline.decisions.record import current_decisions
from heatlas.pipeline.decisions.rle import decode_mask
from heatlas.pipeline.view.serve import start_view

from ...support.reported_store import write_reported
from ...support.view_client import Client


def ids(store: Path, where: str) -> list[str]:
    """What SQL over the store's own files finds, one row per image."""
    rows = heatlas.open(str(store)).sql(
        f"SELECT DISTINCT id FROM atlas WHERE (target = prediction OR target IS NULL) AND ({where}) ORDER BY id"
    )
    return [row[0] for row in rows.fetchall()]


@pytest.fixture
def decided(tmp_path: Path) -> Iterator[tuple[Client, Path]]:
    out = write_reported(tmp_path / "out", tmp_path / "images", 30)
    server = start_view(str(out), who="ada")
    yield Client(server), out
    server.stop()


def holding(out: Path) -> dict[str, tuple[str, str | None]]:
    """What the one reader says of a store."""
    return {decision.id: (decision.kind, decision.label_name) for decision in current_decisions(str(out)).current}


def test_decisions_are_files_that_the_one_reader_reads(decided: tuple[Client, Path]) -> None:
    client, out = decided
    ids = client.arrow("rows", {"filter": {}, "count": 30})[0]["id"].to_pylist()
    client.json("decide", {"rows": [3], "kind": "ok"})
    client.json("decide", {"rows": [4], "kind": "relabel", "label": "ant", "why": "six legs"})
    client.json("decide", {"rows": [7, 8, 9], "kind": "drop"})
    assert holding(out) == {
        ids[3]: ("ok", None),
        ids[4]: ("relabel", "ant"),
        **dict.fromkeys(ids[7:10], ("drop", None)),
    }
    first = current_decisions(str(out)).current
    assert {decision.who for decision in first} == {"ada"}
    assert {decision.source for decision in first} == {"view"}
    assert next(decision for decision in first if decision.kind == "relabel").why == "six legs"
    for chosen, expected in (("any", 5), ("none", 25), ("drop", 3)):
        assert int(client.arrow("rows", {"filter": {"decision": chosen}})[1]["x-heatlas-total"]) == expected


def test_the_last_decision_wins_and_undo_brings_the_one_before_back(decided: tuple[Client, Path]) -> None:
    client, out = decided
    client.json("decide", {"rows": [3, 4], "kind": "ok"})
    later = client.json("decide", {"rows": [3, 4, 5], "kind": "drop"})
    assert {kind for kind, _ in holding(out).values()} == {"drop"}
    assert client.json("undo", {"batch": later["batch"]})["count"] == 3
    assert [kind for kind, _ in holding(out).values()] == ["ok", "ok"]
    assert "undone already" in client.error("undo", {"batch": later["batch"]})
    assert "no act" in client.error("undo", {"batch": "../../nothing"})


def test_everything_that_matches_is_decided_at_once(decided: tuple[Client, Path]) -> None:
    client, out = decided
    expected = set(ids(out, "prediction = label AND ebpg < 0.1"))
    written = client.json("decide", {"filter": {"outcome": "off-object"}, "kind": "shortcut"})
    assert written["count"] == len(expected) > 3
    assert holding(out).keys() == expected


def test_a_painted_mask_is_stored_in_source_pixels(decided: tuple[Client, Path]) -> None:
    client, out = decided
    painted = np.zeros((40, 60), bool)  # twice the source image's 20 x 30
    painted[20:, :30] = True
    bits = base64.b64encode(np.packbits(painted)).decode()
    client.json("decide", {"rows": [3], "kind": "shortcut", "mask": {"width": 60, "height": 40, "bits": bits}})
    [decision] = current_decisions(str(out)).current
    assert decision.mask is not None
    stored = decode_mask(decision.mask)
    assert stored.shape == (20, 30)
    assert stored[10:, :15].all()
    assert stored.sum() == 150
    for bad in ({"width": 60, "height": 40, "bits": "AA=="}, {"width": 0, "height": 1, "bits": ""}, {"width": 8, "height": 1, "bits": "AA=="}, "x",
                {"width": 10**6, "height": 10**6, "bits": ""}):  # fmt: skip
        assert client.error("decide", {"rows": [3], "kind": "shortcut", "mask": bad})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rows": [3], "kind": "keep"}, "choose ok, relabel"),
        ({"rows": [3], "kind": "undo"}, "unknown decision"),
        ({"rows": [], "kind": "ok"}, "1 to 100,000 images"),
        ({"rows": [3], "kind": "relabel"}, "does not say to which class"),
        ({"rows": [3], "kind": "relabel", "label": "art"}, "did you mean 'ant'"),
        ({"rows": [999], "kind": "ok"}, "no row 999"),
        ({"rows": ["3"], "kind": "ok"}, "row numbers"),
        ({"kind": "ok"}, "row numbers"),
        ({"rows": [3], "kind": "ok", "why": 3}, "why must be text"),
    ],
)
def test_wrong_decisions_are_refused_and_nothing_is_written(
    decided: tuple[Client, Path], asked: Any, message: str
) -> None:
    client, out = decided
    assert message in client.error("decide", asked)
    assert holding(out) == {}


def test_pages_and_processes_beside_each_other_lose_nothing(decided: tuple[Client, Path]) -> None:
    client, out = decided
    second = start_view(str(out), who="grace")
    try:
        pages = [client, client, Client(second), Client(second)]
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda n: pages[n % 4].json("decide", {"rows": [n], "kind": "ok"}), range(28)))
        assert len({written["batch"] for written in done}) == 28
        assert len(holding(out)) == 28
        for page in pages[1:3]:
            told = json.loads(page.send("GET", "api/changes/0")[2])
            assert len({change["id"] for change in told["changes"]}) == 28
            assert int(page.arrow("rows", {"filter": {"decision": "ok"}})[1]["x-heatlas-total"]) == 28
    finally:
        second.stop()


def test_a_kept_order_does_not_move_when_images_are_decided(decided: tuple[Client, Path]) -> None:
    client, _ = decided
    asked = {"filter": {"decision": "none"}, "session": "page-1"}
    before, _ = client.arrow("rows", {**asked, "count": 30})
    client.json("decide", {"rows": before["n"].to_pylist()[:10], "kind": "ok"})
    after, _ = client.arrow("rows", {**asked, "start": 10, "count": 5})
    assert after["id"].to_pylist() == before["id"].to_pylist()[10:15]
    _, headers = client.arrow("rows", {**asked, "session": "page-2"})
    assert int(headers["x-heatlas-total"]) == 20


def test_decisions_survive_the_server(decided: tuple[Client, Path]) -> None:
    client, out = decided
    written = client.json("decide", {"rows": [1, 2], "kind": "unsure"})
    again = start_view(str(out))
    try:
        other = Client(again)
        assert int(other.arrow("rows", {"filter": {"decision": "unsure"}})[1]["x-heatlas-total"]) == 2
        assert other.json("undo", {"batch": written["batch"]})["count"] == 2
        assert holding(out) == {}
    finally:
        again.stop()


def test_the_latest_act_can_be_undone_after_a_restart(decided: tuple[Client, Path]) -> None:
    client, out = decided
    assert client.get("latest_act") is None
    client.json("decide", {"rows": [4], "kind": "ok"})
    written = client.json("decide", {"rows": [7, 8], "kind": "drop"})
    heatlas.open(str(out)).decide(["image-0010"], kind="unsure", who="ada")  # not in a page
    again = start_view(str(out), who="ada")
    stranger = start_view(str(out), who="grace")
    try:
        other = Client(again)
        act = other.get("latest_act")
        assert (act["batch"], act["kind"], act["count"], act["who"], act["row"]) == (
            written["batch"],
            "drop",
            2,
            "ada",
            7,
        )
        other.json("undo", {"batch": act["batch"]})
        assert other.get("latest_act")["row"] == 4
        assert Client(stranger).get("latest_act") is None
    finally:
        again.stop()
        stranger.stop()


def test_a_bulk_decision_is_refused_when_other_images_match_by_now(decided: tuple[Client, Path]) -> None:
    client, out = decided
    count = client.json("select", {"filter": {"decision": "none"}})["totals"]["images"]
    client.json("decide", {"rows": [4], "kind": "ok"})
    asked = {"filter": {"decision": "none"}, "kind": "drop", "count": count}
    assert f"{count - 1} images match now, not {count}" in client.error("decide", asked)
    assert len(holding(out)) == 1
    assert client.json("decide", {**asked, "count": count - 1})["count"] == count - 1
