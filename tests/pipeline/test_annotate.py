"""Suggestions go to annotation tools and come back as decisions; a mask is the same, bit for bit, through every format."""

from __future__ import annotations

import json
from pathlib import Path

import heatlas
import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.annotate.brush_rle import decode_brush, encode_brush
from heatlas.pipeline.annotate.coco_tasks import coco_bytes, cvat_bytes, json_of_zip, read_coco_answers
from heatlas.pipeline.annotate.exchange import pushed_before
from heatlas.pipeline.annotate.fiftyone_tasks import read_fiftyone_answers, write_fiftyone_tasks
from heatlas.pipeline.annotate.label_studio import label_studio_bytes, read_label_studio_answers
from heatlas.pipeline.annotate.suggest import mask_on_image, strong_part
from heatlas.pipeline.annotate.suggestion import Suggestion, suggestion_id
from heatlas.pipeline.annotate.table_tasks import read_table_answers, table_bytes
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.decisions.rle import decode_mask, encode_mask
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.workers.images.preprocess import Preprocess
from hypothesis import HealthCheck, given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as coco

from ..support.reported_store import CLASSES, write_reported

NAMES = ("ant", "bee")


def suggestion(mask, folder: Path, kind="shortcut", name="a.png"):
    height, width = mask.shape
    if not (folder / name).exists():
        Image.new("RGB", (width, height)).save(folder / name)
    return Suggestion(
        suggestion_id("a", 1, kind, b""),
        "a",
        str(folder / name),
        kind,
        height,
        width,
        1,
        0.5,
        "Look here.",
        "bee",
        encode_mask(mask),
    )


def by_coco(it, folder):
    return read_coco_answers(coco_bytes([it], NAMES), "a.json", {})


def by_cvat(it, folder):
    data = json.loads(json_of_zip(cvat_bytes([it], NAMES), "a.zip"))
    for part in (*data["images"], *data["annotations"]):  # CVAT keeps file names only
        part.pop("heatlas_id", None), part.pop("attributes", None)
    return read_coco_answers(json.dumps(data).encode(), "a.zip", {"a.png": "a"})


def by_label_studio(it, folder):
    [task] = json.loads(label_studio_bytes([it], NAMES))
    task["annotations"] = [
        {
            "completed_by": {"email": "ada@x"},
            "updated_at": "2026-01-01T00:00:00Z",
            "result": task.pop("predictions")[0]["result"],
        }
    ]
    return read_label_studio_answers(json.dumps([task]).encode(), "a.json", {})


def by_fiftyone(it, folder):
    place = folder / f"fiftyone-{it.height}x{it.width}-{len(list(folder.iterdir()))}"
    place.mkdir()
    assert write_fiftyone_tasks([it], place, FsspecReader(str(folder))) == 0
    return read_fiftyone_answers(str(place))


def by_table(ending):
    def through(it, folder):
        file = folder / f"table{ending}"
        file.write_bytes(table_bytes([it], ending))
        table = read_rows(file)
        table[0]["decision"] = "shortcut"
        file.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
        return read_table_answers(str(file.with_suffix(".jsonl")))

    return through


def read_rows(file: Path):
    import pyarrow.csv
    import pyarrow.parquet

    read = pyarrow.parquet.read_table if file.suffix == ".parquet" else pyarrow.csv.read_csv
    return read(file).to_pylist()


WAYS = {
    "coco": by_coco,
    "cvat": by_cvat,
    "label-studio": by_label_studio,
    "fiftyone": by_fiftyone,
    "csv": by_table(".csv"),
    "parquet": by_table(".parquet"),
}


def check_ways(mask, folder, ways=tuple(WAYS)):
    for way in ways:
        name = f"{mask.shape[0]}x{mask.shape[1]}.png"
        [answer] = WAYS[way](suggestion(mask, folder, name="a.png" if way == "cvat" else name), folder)
        assert (answer.id, answer.called) == ("a", "shortcut"), way
        assert np.array_equal(decode_mask(answer.mask), mask), way


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=23)))
def test_a_mask_survives_every_format_bit_for_bit(tmp_path, mask):
    check_ways(mask, tmp_path)


def test_masks_with_holes_empty_full_and_8192_pixels_wide_survive(tmp_path):
    ring = np.zeros((40, 60), bool)
    ring[5:30, 10:50] = True
    ring[10:20, 20:40] = False
    wide = np.zeros((3, 8192), bool)
    wide[1, 17:8000:3] = True
    for mask in (ring, ring[:, ::-1] & False, ring | True, wide, wide.T.copy()):
        check_ways(mask, tmp_path)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_run_lengths_are_those_of_cocos_own_library(mask):
    it = Suggestion("s", "a", "a.png", "shortcut", *mask.shape, 0, 0.5, "", mask=encode_mask(mask))
    [annotation] = json.loads(coco_bytes([it], NAMES))["annotations"]
    segmentation = annotation["segmentation"]
    assert np.array_equal(coco.decode(coco.frPyObjects(segmentation, *segmentation["size"])), mask)
    assert annotation["area"] == mask.sum()
    if mask.any():
        assert annotation["bbox"] == coco.toBbox(coco.encode(np.asfortranarray(mask, np.uint8))).tolist()


def test_runs_of_every_length_survive_the_brush():
    for length in (1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 20000):
        mask = np.zeros((1, length + 3), bool)
        mask[0, 1 : length + 1] = True
        assert np.array_equal(decode_brush(encode_brush(mask), 1, length + 3), mask)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ([0, 0, 0], "ends too early"),
        ([0, 0, 0, 8, 58, 193, 31, 0], "holds 8 values, its image of 3 x 2 pixels has 24"),
        ([0, 0, 0, 300], "bytes, whole numbers"),
    ],
)
def test_a_broken_brush_is_refused(stream, message):
    with pytest.raises(UsageError, match=message):
        decode_brush(stream, 2, 3)


def test_polygons_and_foreign_categories_of_a_coco_file():
    data = json.loads(coco_bytes([Suggestion("s", "a", "a.png", "label", 6, 8, 0, 0.5, "", suggested="bee")], NAMES))
    shortcut = next(category["id"] for category in data["categories"] if category["name"] == "shortcut")
    data["categories"].append({"id": 99, "name": "cat"})
    data["annotations"] += [
        {"id": 7, "image_id": 1, "category_id": shortcut, "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]]},
        {"id": 8, "image_id": 1, "category_id": 99, "segmentation": []},
    ]
    first, second = read_coco_answers(json.dumps(data).encode(), "a.json", {})
    assert (first.called, first.mask) == ("relabel:bee", None)
    expected = np.zeros((6, 8), bool)
    expected[1:4, 1:5] = True
    assert np.array_equal(decode_mask(second.mask), expected)
    data["annotations"][-2]["segmentation"] = {"size": [5, 8], "counts": [40]}
    with pytest.raises(UsageError, match="has a mask of 8 x 5 pixels, its image has 8 x 6"):
        read_coco_answers(json.dumps(data).encode(), "a.json", {})
    data["images"][0] |= {"heatlas_id": None, "file_name": "other.png"}
    with pytest.raises(UsageError, match=r"has the image 'other.png', which was not pushed"):
        read_coco_answers(json.dumps(data).encode(), "a.json", {})


@pytest.mark.parametrize("crop", ["squash", "shorter", "pad"])
def test_a_mask_goes_to_the_image_and_back(crop):
    """What the network saw of an upright image of 90 x 60 pixels."""
    geometry = (
        Preprocess(size=(30, 30), resize=crop).geometry(90, 60)
        if crop != "shorter"
        else Preprocess(size=(30, 30)).geometry(90, 60)
    )
    mask = np.zeros((30, 30), bool)
    mask[8:20, 12:18] = True
    whole = mask_on_image(mask, geometry)
    assert whole.shape == (90, 60)
    assert np.array_equal(geometry.mask(whole), mask & geometry.mask(np.ones((90, 60), bool)))


def test_the_strong_part_lies_outside_the_truth():
    map_ = np.array([[0.9, 0.4, 0.1], [0.3, 0.2, 0.0]])
    assert strong_part(map_, None).tolist() == [[True, False, False], [False, False, False]]
    truth = np.array([[True, False, False], [False, False, False]])
    assert strong_part(map_, truth).tolist() == [[False, True, False], [True, True, False]]
    assert not strong_part(np.zeros((2, 2)), None).any()


@pytest.fixture
def store(tmp_path):
    return write_reported(tmp_path / "out", tmp_path / "images")


def test_suggestions_are_pushed_once_and_answered(store, tmp_path, capsys):
    file = tmp_path / "tasks.json"
    assert main(["annotate", "push", str(store), "--tool", "coco", "--out", str(file), "--kind", "shortcut"]) == 0
    assert "pushed 19 suggestions for 19 images (19 shortcut)" in capsys.readouterr().out
    first = {row["suggestion_id"] for row in pushed_before(heatlas.open(store))}
    assert (
        main(
            ["annotate", "push", str(store), "--tool", "coco", "--out", str(file), "--kind", "shortcut", "--overwrite"]
        )
        == 0
    )
    assert {row["suggestion_id"] for row in pushed_before(heatlas.open(store))} == first, (
        "the same rows have the same ids"
    )

    data = json.loads(file.read_text())
    size = data["annotations"][0]["segmentation"]["size"]
    assert size == [data["images"][0]["height"], data["images"][0]["width"]]
    counts = [0, 5, size[0] * size[1] - 5]
    data["annotations"][0]["segmentation"] = {"size": size, "counts": counts}
    del data["annotations"][5]
    file.write_text(json.dumps(data))
    capsys.readouterr()
    assert (
        main(["annotate", "pull", str(store), "--tool", "coco", "--from", str(file), "--who", "ada", "--round", "1"])
        == 0
    )
    said = capsys.readouterr().out
    assert "recorded 1 decision: 1 shortcut" in said
    assert "17 suggestions came back unchanged and not confirmed" in said
    assert "1 suggestion removed in the tool" in said
    [decision] = heatlas.open(store).decisions().current
    assert (decision.who, decision.round, decision.source, decision.kind) == ("ada", 1, "annotate", "shortcut")
    assert decision.why == f"suggestion {data['annotations'][0]['attributes']['suggestion_id']}"
    assert decode_mask(decision.mask).sum() == 5
    assert main(["annotate", "pull", str(store), "--tool", "coco", "--from", str(file), "--accept-unchanged"]) == 0
    assert len(heatlas.open(store).decisions().current) == 18


def test_a_table_is_filled_in_by_hand(store, tmp_path, capsys):
    file = tmp_path / "review.csv"
    assert main(["annotate", "push", str(store), "--tool", "csv", "--out", str(file), "--kind", "shortcut"]) == 0
    rows = read_rows(file)
    lines = ["id,decision,suggested,mask,suggestion_id"]
    for row, decision in zip(rows, ["shortcut", "keep", f"relabel:{CLASSES[0]}", "drop"], strict=False):
        mask, identity, said = (str(text).replace('"', '""') for text in (row["mask"], row["id"], decision))
        lines.append(f'"{identity}","{said}",,"{mask}",{row["suggestion_id"]}')
    file.write_text("\n".join(lines) + "\n")
    assert main(["annotate", "pull", str(store), "--tool", "csv", "--from", str(file)]) == 0
    assert "recorded 4 decisions" in capsys.readouterr().out
    kinds = [decision.kind for decision in heatlas.open(store).decisions().current]
    assert sorted(kinds) == ["drop", "ok", "relabel", "shortcut"]


def test_what_cannot_be_meant_is_refused(store, tmp_path, capsys):
    out = str(store)
    for words, message in (
        (["push", out, "--tool", "coco", "--out", "tasks.zip"], "must end in .json for coco"),
        (["push", out, "--tool", "coco"], "annotate push needs --out"),
        (["pull", out, "--tool", "cvat", "--from", "x.zip"], "nothing was pushed from"),
        (["push", out, "--tool", "csv", "--out", str(tmp_path / "a.csv"), "--limit", "0"], "limit must be at least 1"),
        (["push", out, "--tool", "csv", "--out", str(tmp_path / "a.csv"), "--kind", "label"], "nothing to suggest for"),
    ):
        assert main(["annotate", *words]) == 2
        assert message in capsys.readouterr().err
