"""What the view links to an image: its marked object, the maps of blocks, nearest images, and its point in a scatter plot."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.features.image_table import ImageFeatures, write_features
from heatlas.pipeline.view.embeddings import in_unit_square, neighbour_plane, principal_plane
from heatlas.pipeline.view.filters import parse_filter
from heatlas.pipeline.view.recent_arrays import RecentArrays
from heatlas.pipeline.view.serve import start_view
from sklearn.decomposition import PCA

from ...support.embedded_store import MASKED, blocks_of, features_of, write_embedded
from ...support.reported_store import SIDE, write_reported
from ...support.view_client import Client

COUNT = 40


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("linked")
    return write_embedded(folder / "out", folder / "images", COUNT)


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[Client]:
    server = start_view(str(store))
    yield Client(server)
    server.stop()


def area(path: str, height: int, width: int) -> np.ndarray:
    """The cells inside an outline of whole cells, by counting its vertical edges from the left."""
    crossings = np.zeros((height, width + 1), int)
    for x, top, bottom in re.findall(r"M(\d+) (\d+)V(\d+)", path):
        crossings[int(top) : int(bottom), int(x)] += 1
    return (crossings.cumsum(axis=1)[:, :width] % 2).astype(bool)


def test_the_marked_object_is_outlined_as_the_metrics_took_it(client: Client) -> None:
    boxed = client.get("truth/0")
    assert (boxed["kind"], boxed["count"], boxed["height"], boxed["width"]) == ("boxes", 1, SIDE, SIDE)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[: SIDE // 2, : SIDE // 2] = True  # 15 x 10 of 30 x 20 pixels, squashed to 24 x 24
    np.testing.assert_array_equal(area(boxed["path"], SIDE, SIDE), expected)
    masked = client.get(f"truth/{MASKED}")
    assert masked["kind"] == "mask"
    expected = np.zeros((SIDE, SIDE), bool)
    expected[:, SIDE // 2 :] = True
    np.testing.assert_array_equal(area(masked["path"], SIDE, SIDE), expected)
    assert client.get(f"truth/{COUNT - 2}") is not None
    assert client.get(f"truth/{COUNT - 1}") is None
    assert client.get("truth/9999") is None


def test_without_its_data_set_it_is_said_why_nothing_is_outlined(tmp_path: Path) -> None:
    out = write_embedded(tmp_path / "out", tmp_path / "images", 12)
    (tmp_path / "images" / "data.jsonl").unlink()
    server = start_view(str(out))
    try:
        answer = Client(server).get("truth/0")
        assert answer["everywhere"]
        assert "data.jsonl" in answer["reason"]
    finally:
        server.stop()


def test_an_image_that_the_data_set_now_has_elsewhere_is_not_outlined_and_that_is_said(tmp_path: Path) -> None:
    out, data = write_embedded(tmp_path / "out", tmp_path / "images", 12), tmp_path / "images" / "data.jsonl"
    shutil.copy(tmp_path / "images" / "001.png", tmp_path / "images" / "moved.png")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "images" / "002.png")
    data.write_text(data.read_text().replace("001.png", "moved.png").replace("002.png", "link.png"))
    server = start_view(str(out))
    try:
        client = Client(server)
        answer = client.get("truth/1")
        assert (answer["everywhere"], "path" in answer) == (False, False)
        assert re.search("has this image at .*moved.png, the run read it from .*001.png", answer["reason"])
        assert client.get("truth/0")["kind"] == "boxes"
        assert client.get("truth/2")["kind"] == "boxes"  # the same file by another name
    finally:
        server.stop()


def test_maps_of_blocks_are_the_stored_ones(client: Client) -> None:
    assert client.get("store")["blocks"] == {"count": 2, "meaning": "map of every block"}
    status, headers, content = client.send("GET", "api/blocks/5")
    assert (status, headers["x-heatlas-present"]) == (200, "11")
    stored = blocks_of(5)
    assert np.abs(np.frombuffer(content, np.uint8).reshape(stored.shape) / 255 - stored / stored.max()).max() < 0.01
    assert client.send("GET", "api/blocks/19")[1]["x-heatlas-present"] == "00"  # could not be decoded


def test_nearest_images_by_features_are_those_of_the_cosine(client: Client) -> None:
    ok = [number for number in range(COUNT) if number % 20 != 19]
    unit = np.stack([features_of(number) / np.linalg.norm(features_of(number)) for number in ok])
    cosine = unit @ unit[ok.index(7)]
    expected = sorted((number for number in ok if number != 7), key=lambda number: -cosine[ok.index(number)])[:12]
    answer = client.json("nearest", {"row": 7, "by": "features"})
    assert [row["n"] for row in answer["rows"]] == expected
    assert answer["rows"][0]["similarity"] == pytest.approx(float(np.sort(cosine)[-2]), abs=2e-3)
    assert answer["searched"] == len(ok)


def test_features_beside_the_store_are_taken_where_it_has_none(tmp_path: Path) -> None:
    out = write_reported(tmp_path / "out", tmp_path / "images", 12)
    ids = [f"image-{number:04d}" for number in range(7, 12)]
    features = np.eye(5, 4, dtype=np.float32) + 0.1
    hashes = np.zeros((5, 8), np.uint8)
    write_features(
        str(out), ImageFeatures(tuple(ids), np.zeros(5, np.int64), features, np.ones((5, 1)), hashes, hashes)
    )
    server = start_view(str(out))
    try:
        answer = Client(server).json("nearest", {"row": 7, "by": "features"})
        assert (len(answer["rows"]), answer["searched"]) == (4, 5)
        assert "has no features" in Client(server).error("nearest", {"row": 0, "by": "features"})
    finally:
        server.stop()


def test_points_are_the_principal_components(client: Client) -> None:
    assert client.get("store")["embeddings"] == ["map-pca", "map-tsne", "features-pca", "features-tsne"]
    table, headers = client.arrow("embedding", {"kind": "features-pca"})
    numbers = table["n"].to_pylist()
    assert numbers == [number for number in range(COUNT) if number % 20 != 19]
    unit = np.stack([features_of(number) / np.linalg.norm(features_of(number)) for number in numbers])
    pca = PCA(2).fit(unit)
    theirs, ours = pca.transform(unit), np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    for axis in (0, 1):
        assert abs(np.corrcoef(theirs[:, axis], ours[:, axis])[0, 1]) > 0.999
    assert float(headers["x-heatlas-explained"]) == pytest.approx(pca.explained_variance_ratio_.sum(), abs=0.01)
    assert table["label"].to_pylist() == [number % 3 for number in numbers]
    assert "unknown embedding" in client.error("embedding", {"kind": "umap"})


def test_a_region_filters_by_its_points_and_is_left_out_of_its_own_plot(client: Client) -> None:
    table, _ = client.arrow("embedding", {"kind": "features-pca"})
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    chosen = {"region": "features-pca:0,0.5,0,1", "label": [0, 1]}
    label = table["label"].to_numpy()
    expected = table["n"].to_numpy()[(x <= 0.5) & (y <= 1) & (label < 2)].tolist()
    assert 0 < len(expected) < len(x)
    rows, _ = client.arrow("rows", {"filter": chosen, "count": 500})
    assert rows["n"].to_pylist() == expected
    _, _, content = client.post("embedding_matches", {"kind": "features-pca", "filter": chosen})
    assert np.frombuffer(content, bool).tolist() == (label < 2).tolist()
    for bad in ("features-pca", "features-pca:1,2,3", "features-pca:a,b,c,d", "umap:0,1,0,1", "features-pca:0,inf,0,1"):
        assert "region" in client.error("rows", {"filter": {"region": bad}}) or bad.startswith("umap")
    assert parse_filter({}, ()).region is None


def test_planes_of_few_and_of_equal_rows() -> None:
    same = np.ones((5, 4), np.float32)
    assert principal_plane(same)[1] == 0
    assert np.isfinite(in_unit_square(principal_plane(same)[0])).all()
    assert neighbour_plane(same).shape == (5, 2)
    spread = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    points = in_unit_square(neighbour_plane(spread))
    assert points.min() >= 0
    assert points.max() <= 1
    np.testing.assert_array_equal(points, in_unit_square(neighbour_plane(spread)))


def test_the_oldest_arrays_are_forgotten_first() -> None:
    kept, made = RecentArrays(100), []

    def array(name: str) -> np.ndarray:
        made.append(name)
        return np.zeros(40, np.uint8)

    for name in ("a", "b", "a", "c", "a", "b"):
        kept.get(name, lambda name=name: array(name))
    assert made == ["a", "b", "c", "b"]


def test_a_filter_by_decision_is_asked_again_after_a_decision(tmp_path: Path) -> None:
    server = start_view(str(write_embedded(tmp_path / "out", tmp_path / "images", 12)))
    try:
        client = Client(server)
        asked = {"filter": {"decision": "any"}, "columns": ["ebpg"]}
        assert client.json("select", asked)["totals"]["rows"] == 0
        client.json("decide", {"rows": [1, 2], "kind": "ok"})
        answer = client.json("select", asked)
        assert (answer["totals"]["rows"], sum(answer["histograms"]["ebpg"])) == (2, 2)
    finally:
        server.stop()


def test_unknown_values_are_refused() -> None:
    with pytest.raises(UsageError, match="region must be text"):
        parse_filter({"region": 3}, ())


def test_the_server_does_without_torch() -> None:
    code = "import sys, heatlas.pipeline.view.app, heatlas.pipeline.store.reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
