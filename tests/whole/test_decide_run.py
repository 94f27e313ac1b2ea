"""From a run to decisions to a manifest that `heatlas explain --data` reads: labels replaced, images dropped, the rest as it was."""

from __future__ import annotations

import csv
import json

import heatlas
import numpy as np
import pytest
from heatlas.pipeline.cli.app import main
from PIL import Image

from ..support.tiny_run import command, draw_all, importable_factory


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A run over a manifest with boxes and a column of its own, and the folder of all this."""
    folder = tmp_path_factory.mktemp("decided")
    draw_all(folder / "images", 6)
    lines = ["id,uri,label,boxes,camera"]
    for number, path in enumerate(sorted((folder / "images").rglob("*.png"))):
        lines.append(f'{path.stem},{path.relative_to(folder)},{path.parent.name},"[[1, 2, 20, 18]]",cam-{number % 2}')
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    with importable_factory(folder):
        assert main(command(folder / "labels.csv", folder / "out", "--metrics", "ebpg")) == 0
        yield folder


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_manifest_is_explained_as_decided(explained, tmp_path, capsys, ending):
    atlas = heatlas.open(explained / "out")
    mask = np.zeros((30, 36), bool)
    mask[3:9, 5:30] = True
    names = {row["id"]: row["label"] for row in atlas.table(["id", "label"]).to_pylist()}
    atlas.decide("000", "relabel", label_name=_other(atlas, names["000"]))
    atlas.decide("001", "drop")
    atlas.decide("002", "shortcut", mask=mask)
    atlas.decide("003", "drop", object_id="7")
    to = tmp_path / f"decided.{ending}"
    assert main(["decide", str(explained / "out"), "--manifest", str(to)]) == 0
    said = capsys.readouterr().out
    assert f"manifest: {to} (5 rows; 1 relabelled, 1 dropped, 1 mask; 1 decision about objects" in said
    assert main(command(to, tmp_path / "again", "--metrics", "ebpg")) == 0
    rows = {row["id"]: row for row in heatlas.open(tmp_path / "again").table().to_pylist()}
    assert set(rows) == {"000", "002", "003", "004", "005"}
    assert rows["000"]["label"] != names["000"]
    assert all(rows[identity]["label"] == names[identity] for identity in ("002", "003", "004", "005"))
    assert all(row["ebpg"] is not None and row["camera"].startswith("cam-") for row in rows.values()), (
        "boxes and own columns are kept"
    )
    assert rows["000"]["decision"] == "relabel"
    painted = np.asarray(Image.open(tmp_path / rows["002"]["shortcut_mask"])) > 0
    assert np.array_equal(painted, mask)
    assert main(["verify", str(explained / "out")]) == 0
    before = (explained / "labels.csv").read_text()
    assert ",ant," in before, "the data set itself is not changed"


def _other(atlas, label):
    return atlas.class_names[(label + 1) % 3]


def test_a_manifest_is_plain_for_trainers(explained, tmp_path):
    atlas = heatlas.open(explained / "out")
    overlay = atlas.manifest(tmp_path / "plain.csv")
    with open(overlay.uri, newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["uri"].startswith("/") and json.loads(row["boxes"]) == [[1, 2, 20, 18]] for row in rows)
    assert list(rows[0])[:5] == ["id", "uri", "label", "boxes", "camera"]
