"""Commands on a store of imported maps: clusters, the view, and what they say where maps of a method of ours could do more."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import heatlas
import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.view.serve import start_view
from PIL import Image

from ..support import tiny_run
from ..support.view_client import Client

IMAGES = 12
OPTIONS = {
    "preprocess": {"size": 24, "resize": "squash"},
    "batch_size": 8,
    "shard_size": 3,
    "workers": 0,
    "chance_maps": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_run.importable_factory(tmp_path_factory.mktemp("imported")) as folder:
        tiny_run.draw_all(folder / "images", IMAGES)
        yield folder


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    """Every other map hangs on the upper left corner, the others on the lower right one."""
    result = np.random.default_rng(0).random((IMAGES, 24, 24), np.float32) * 0.02
    result[::2, :6, :6] = 1.0
    result[1::2, 18:, 18:] = 1.0
    return result


@pytest.fixture(scope="module")
def store(folder: Path, maps: np.ndarray) -> Path:
    """In the order of the listing, for the classes that the model predicts."""
    heatlas.import_maps(
        maps, by="position", model="tiny_net:model", data=folder / "images", out=folder / "out", method="corners",
        metrics=["drop_pct", "border_share"], **OPTIONS,
    )  # fmt: skip
    return folder / "out"


def test_clusters_are_those_of_the_maps(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = heatlas.open(store).to_pandas(["id", "prediction"]).sort_values("id")
    corner = {identity: place % 2 for place, identity in enumerate(ids["id"])}
    classes = dict(zip(ids["id"], ids["prediction"], strict=True))
    members = heatlas.open(store).cluster(min_size=2).members.to_pylist()
    inside: dict[tuple[int, int], set[int]] = {}
    for row in members:
        assert row["class"] == classes[row["id"]]
        inside.setdefault((row["class"], row["cluster"]), set()).add(corner[row["id"]])
    clusters = {key: corners for key, corners in inside.items() if key[1] >= 0}
    assert len(clusters) >= 2
    assert all(len(corners) == 1 for corners in clusters.values()), "a cluster with maps of both corners"
    assert main(["cluster", str(store), "--min-size", "2"]) == 0
    assert (store / "clusters" / "clusters.parquet").exists()


def test_the_view_shows_the_imported_maps_beside_their_images(store: Path, maps: np.ndarray) -> None:
    server = start_view(str(store))
    try:
        client = Client(server)
        table, headers = client.arrow("rows", {"filter": {}, "sort": "id", "count": 50})
        assert int(headers["x-heatlas-total"]) == IMAGES
        status, headers, content = client.post("maps", {"rows": table["n"].to_pylist()})
        assert status == 200
        shape = (int(headers["x-heatlas-height"]), int(headers["x-heatlas-width"]))
        shown = np.frombuffer(content, np.uint8).reshape(IMAGES, *shape) / 255
        assert shown == pytest.approx(maps / maps.max(axis=(1, 2), keepdims=True), abs=2 / 255)
        status, _, content = client.send("GET", "api/view/0")
        assert status == 200
        assert Image.open(io.BytesIO(content)).size == (24, 24)
        detail = client.get("detail/0")
        assert {metric["name"] for metric in detail["metrics"]} >= {"drop_pct", "border_share"}
        found = client.json("select", {"filter": {"sql": "border_share > 0.5"}, "columns": []})["totals"]["rows"]
        assert found == len(heatlas.open(store).to_pandas(["id"], where="border_share > 0.5"))
    finally:
        server.stop()


def test_two_stores_are_viewed_side_by_side(folder: Path, store: Path) -> None:
    assert main(tiny_run.command(folder / "images", folder / "own", "--method", "grad_cam", "--metrics", "none")) == 0
    server = start_view(str(store), compare=str(folder / "own"))
    try:
        client = Client(server)
        assert client.get("store")["method"] == "corners"
        assert client.get("second/0") is not None
    finally:
        server.stop()


def test_remedies_fit_imported_maps(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as refused:
        heatlas.open(store).curate(["unstable"])
    assert "the maps of this store are imported, and max_sensitivity would need the method that made them" in str(
        refused.value
    )
    assert "heatlas evaluate" not in str(refused.value)


def test_the_status_of_an_unfinished_import_names_its_command(
    folder: Path, maps: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "unfinished"
    heatlas.import_maps(
        maps, by="position", model="tiny_net:model", data=folder / "images", out=out, metrics="none", **OPTIONS
    )
    (out / "_SUCCESS").unlink()
    for part in (out / "maps").iterdir():
        part.unlink()
        assert main(["status", str(out)]) == 0
        said = capsys.readouterr().out
        assert "run the same `heatlas import` command again" in said
        assert "heatlas explain" not in said
    assert main(["summary", str(out)]) != 0
    assert "continue it with the same `heatlas import` command" in capsys.readouterr().err
