"""From a run to decisions to a manifest that `heatlas explain --data` reads: labels replaced, images dropped, the rest as it was."""

from __future__ import annotations

import csv
import json

import heatlas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.annotate import exchange
from heatlas.pipeline.annotate.suggestion import Suggestion
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.decisions.rle import decode_mask, encode_mask
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


def test_masks_are_of_the_upright_image_and_come_back_through_every_tool(tmp_path, capsys):
    """Photographs turned by EXIF, not square, and one that is very wide: pushed, answered and pulled bit for bit; raw sizes are refused."""
    draw_all(tmp_path / "images", 6)
    paths = sorted((tmp_path / "images").rglob("*.png"))
    for number, path in enumerate(paths):
        image = Image.open(path).resize((8192, 16) if number == 0 else (44, 28))
        exif = Image.Exif()
        exif[0x0112] = 1 if number == 0 else 6
        image.save(path.with_suffix(".jpg"), quality=95, exif=exif)
        path.unlink()
    with importable_factory(tmp_path):
        assert main(command(tmp_path / "images", tmp_path / "out", "--metrics", "none")) == 0
    atlas = heatlas.open(tmp_path / "out")
    rows = {row["id"]: row for row in atlas.table(["id", "uri", "height", "width", "target", "label_name"]).to_pylist()}
    assert {(row["height"], row["width"]) for row in rows.values()} == {(16, 8192), (44, 28)}
    random, masks = np.random.default_rng(0), {}
    for identity, row in rows.items():
        masks[identity] = random.random((row["height"], row["width"])) < 0.4
        masks[identity][3:9, 4:20] = True
        masks[identity][5:7, 8:12] = False
    turned = next(identity for identity, row in rows.items() if row["height"] == 44)
    with pytest.raises(UsageError, match=r"44 x 28 pixels, the upright image 28 x 44 \(width and height are exchanged"):
        atlas.decide(turned, "shortcut", mask=masks[turned].T)
    with pytest.raises(UsageError, match=r"5 x 5 pixels, the upright image 28 x 44; give it"):
        atlas.decide(turned, "core", mask=np.ones((5, 5), bool))
    sent = [
        Suggestion(f"{number:020d}", identity, row["uri"], "shortcut", row["height"], row["width"], row["target"], 0.5, "Look here.",
                   row["label_name"], encode_mask(masks[identity]))
        for number, (identity, row) in enumerate(sorted(rows.items()))
    ]  # fmt: skip
    for tool, place in TOOL_PLACES.items():
        to = tmp_path / place
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exchange, "make_suggestions", lambda *_, **__: (sent, {}))
            assert main(["annotate", "push", str(tmp_path / "out"), "--tool", tool, "--out", str(to)]) == 0
        confirm(tool, to)
        pulled = ["annotate", "pull", str(tmp_path / "out"), "--tool", tool, "--from", str(to)]
        assert main([*pulled, "--accept-unchanged", "--who", tool]) == 0, capsys.readouterr().err
        by_tool = {it.id: it for it in atlas.decisions().current if it.who in (tool, "ada@x") and it.kind == "shortcut"}
        assert set(by_tool) == set(rows), tool
        for identity, decision in by_tool.items():
            assert np.array_equal(decode_mask(decision.mask), masks[identity]), (tool, identity)


TOOL_PLACES = {"coco": "tasks.json", "label-studio": "studio.json", "cvat": "tasks.zip", "fiftyone": "fiftyone", "csv": "tasks.csv",
               "parquet": "tasks.parquet"}  # fmt: skip


def confirm(tool, place):
    """What a person does in a tool that says whether one did."""
    if tool == "label-studio":
        tasks = json.loads(place.read_text())
        for task in tasks:
            task["annotations"] = [{"completed_by": {"email": "ada@x"}, "result": task.pop("predictions")[0]["result"]}]
        place.write_text(json.dumps(tasks))
    elif tool == "parquet":
        table = pq.read_table(place)
        filled = pa.array(table["suggestion"].to_pylist(), pa.string())
        pq.write_table(table.set_column(table.column_names.index("decision"), "decision", filled), place)
    elif tool == "csv":
        with open(place, newline="") as file:
            rows = list(csv.DictReader(file))
        with open(place, "w", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows({**row, "decision": row["suggestion"]} for row in rows)
