"""`heatlas export`: every format opened with its own library, hostile ids and class names, and nothing half."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import weakref
from dataclasses import asdict, replace
from pathlib import Path

import heatlas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from heatlas.errors import StorageError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.export.csv_metrics import cell
from heatlas.pipeline.export.export import FORMATS, export_store
from heatlas.pipeline.export.fiftyone_dataset import field_names
from heatlas.pipeline.export.overlays import FileNames
from heatlas.pipeline.export.place import MARKER
from heatlas.pipeline.export.whole_image import box_on_image, hot_box, on_whole_image
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import describe
from heatlas.pipeline.store import parquet_bytes
from heatlas.pipeline.store.merge_parts import same
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.reader import StoreReader
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Row, Sample, Shard
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

NAMES = ("=1+1", '<b>a,b"c', "-cat")
IDS = ["../../../etc/passwd", "/abs/olute.png", "=cmd|' /C calc'!A0", "@sum(1)", "A.png", "a.png", "a/b.png", "a_b.png", "con", "x" * 300,
       "line\nbreak", "\u202egnp.exe", "<script>alert(1)</script>", "\uff1d1", "-1", "ä ö"]  # fmt: skip
BROKEN, GONE = "con", "x" * 300
SIZE = (24, 32)
PREPROCESS = Preprocess(size=SIZE)
LAYOUT = StoreLayout(
    SIZE, metrics=("drop_pct", "ebpg"), map_size=16, extra=(("=odd name", "string"), ("n", "int64"), ("ratio", "double")),
    metadata={"class_names": list(NAMES), "metrics": {"ebpg": {"definition": "ebpg/v1"}, "drop_pct": {"definition": "drop_pct/v1"}}},
)  # fmt: skip


def map_at(row: int, column: int) -> np.ndarray:
    """A block of 8x8 at its place."""
    map_ = np.zeros(SIZE, np.float32)
    map_[row : row + 8, column : column + 8] = 1
    return map_


def claim(out: Path, *, classes: tuple[str, ...] = NAMES, score: str | None = None) -> None:
    settings = describe(load_settings({"model": "tiny:model", "data": "photos", "out": str(out)}))
    fingerprint = {"plan": {"samples": 1, "shards": 1, "digest": "d"}, "preprocess": asdict(PREPROCESS)}
    claim_run(str(out), fingerprint, {**settings, **({"score": score} if score else {})})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Images 60x40; one broken, one gone since, and the first one explained for its label too."""
    folder = tmp_path_factory.mktemp("export")
    rows = []
    for number, identity in enumerate(sorted(IDS)):
        place = folder / f"{number}.png"
        Image.fromarray(np.full((40, 60, 3), 10 * number, np.uint8)).save(place)
        extra = (("=odd name", "=2*3"), ("n", number), ("ratio", float("nan") if number else 0.5))
        sample = Sample(identity, str(place), number % 3, extra=extra)
        if identity == BROKEN:
            rows.append(Row(sample, "decode_error", "=no image", seconds=0.1))
            continue
        facts = {"height": 40, "width": 60, "prediction": 1, "target": 1, "score": 0.75, "logit": -1.5, "map": map_at(8, 16),
                 "metrics": {"drop_pct": -2.5, "ebpg": None}, "mask_counts": (1, 2), "n_forwards": 5, "device": "cpu"}  # fmt: skip
        rows.append(Row(sample, "ok", **facts))
        if number == 0:
            rows.append(Row(sample, "ok", **{**facts, "target": 0, "score": 0.2, "map": map_at(0, 0)}))
    claim(folder / "out")
    assert ParquetSink(str(folder / "out"), LAYOUT).commit(Shard(0, 0, 8), rows[:9])
    assert ParquetSink(str(folder / "out"), LAYOUT).commit(Shard(1, 8, 16), rows[9:])
    (folder / f"{sorted(IDS).index(GONE)}.png").unlink()
    return folder / "out"


def picture(path: Path) -> tuple[str, tuple[int, int]]:
    with Image.open(path) as image:
        return image.mode, image.size


def export(store, to, place, *more) -> int:
    return main(["export", str(store), "--format", to, "--out", str(place), *map(str, more)])


# --- CSV


def test_csv_opens_with_every_row_and_exact_numbers(store, tmp_path, capsys):
    assert export(store, "csv", tmp_path / "m.csv") == 0
    assert capsys.readouterr().out == f"{tmp_path}/m.csv: 17 rows\n"
    table = heatlas.open(store).to_pandas(names=False)
    result = pd.read_csv(tmp_path / "m.csv", keep_default_na=False, na_values=[""])
    assert len(result) == len(table) == 17
    plain = [column for column in table.columns if column not in ("map", "map_png", "mask_counts", "top_k")]
    assert list(result.columns) == [cell(column) for column in plain] + ["target_name"]
    for name in ("score", "logit", "drop_pct", "label", "n", "height"):
        assert result[name].to_list() == pytest.approx(table[name].astype(float).to_list(), abs=0, nan_ok=True)
    assert result["id"].to_list() == [cell(column) for column in table["id"]]
    assert result["label_name"].to_list() == [cell(NAMES[label]) for label in table["label"]]


def test_no_cell_is_a_formula(store, tmp_path):
    """As a spreadsheet reads it: what is not a number must not begin like a formula, headings included."""
    export(store, "csv", tmp_path / "m.csv")
    with open(tmp_path / "m.csv", encoding="utf-8", newline="") as file:
        cells = [entry for row in csv.reader(file) for entry in row]
    texts = [entry for entry in cells if not is_number(entry)]
    assert not [entry for entry in texts if entry[:1] in ("=", "+", "-", "@", "\t", "\r", "\uff1d")]
    assert "-1.5" in cells
    assert {"'=cmd|' /C calc'!A0", "'@sum(1)", "'-1", "'\uff1d1", "'=odd name", "'=2*3", "'=no image", "'-cat"} <= set(
        cells
    )


def is_number(text: str) -> bool:
    try:
        return text != "'-1" and float(text) is not None
    except ValueError:
        return False


@given(st.text())
def test_a_text_cell_never_begins_like_a_formula(text):
    assert cell(text)[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")
    assert cell(text) in (text, "'" + text)


def test_chosen_rows_and_columns(store, tmp_path, capsys):
    (tmp_path / "ids.txt").write_text("A.png\nä ö\ncon\n")
    more = ("--ids", tmp_path / "ids.txt", "--where", "status = 'ok' -- with a comment", "--columns", "id,score", "n")
    assert export(store, "csv", tmp_path / "m.csv", *more) == 0
    result = pd.read_csv(tmp_path / "m.csv")
    assert result.columns.to_list() == ["id", "score", "n"]
    assert result["id"].to_list() == ["A.png", "ä ö"]
    done = export_store(store, "csv", tmp_path / "two.csv", where="target = 0")
    assert (done.rows, done.written, done.notes) == (1, 1, [])
    assert export(store, "csv", tmp_path / "three.csv", "--where", "n > 13", "--json") == 0
    assert json.loads(capsys.readouterr().out.split("rows\n")[-1])["rows"] == 2


# --- Hugging Face


def test_load_from_disk_gives_the_store(store, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("heatlas.pipeline.export.hf_dataset.FILE_BYTES", 1)
    assert export(store, "hf", tmp_path / "hf") == 0
    assert len(list((tmp_path / "hf").glob("data-*-of-00002.arrow"))) == 2
    result, table = datasets.load_from_disk(tmp_path / "hf"), heatlas.open(store).table()
    assert result.column_names == table.column_names
    assert same(result.data.table.cast(table.schema).combine_chunks(), table.combine_chunks())
    assert result[0]["map_png"].size == (32, 24)
    assert np.array(result[0]["map"]).shape == (12 * 16,)
    assert result.with_format("numpy")[0]["score"] == pytest.approx(0.75)


def test_load_from_disk_of_some_columns(store, tmp_path):
    datasets = pytest.importorskip("datasets")
    assert export(store, "hf", tmp_path / "hf", "--columns", "id", "score", "--where", "n = 3") == 0
    result = datasets.load_from_disk(tmp_path / "hf")
    assert result.column_names == ["id", "score"]
    assert len(result) == 1
    assert json.loads((tmp_path / "hf" / MARKER).read_text())["where"] == "n = 3"


# --- Lance


def test_lance_gives_the_store(store, tmp_path):
    lance = pytest.importorskip("lance")
    assert export(store, "lance", tmp_path / "lance") == 0
    result, table = lance.dataset(str(tmp_path / "lance")), heatlas.open(store).table()
    assert result.count_rows() == 17
    assert result.to_table(columns=["id", "map"])["map"].to_pylist() == table["map"].to_pylist()
    assert result.to_table(filter="status = 'decode_error'")["id"].to_pylist() == ["con"]
    assert result.schema.field("map").type == table.schema.field("map").type


def test_without_lance_the_extra_is_named(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lance", None)
    assert export(store, "lance", tmp_path / "lance") == 2
    assert "pip install 'heatlas[lance]'" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


# --- COCO


def test_coco_opens_and_boxes_lie_where_the_maps_are_hot(store, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    assert export(store, "coco", tmp_path / "coco.json", "--columns", "ebpg", "drop_pct", "ratio") == 0
    result = coco.COCO(str(tmp_path / "coco.json"))
    assert len(result.imgs) == 16
    assert [category["name"] for category in result.loadCats(result.getCatIds())] == list(NAMES)
    annotations = result.loadAnns(result.getAnnIds(imgIds=[1]))
    assert [(annotation["category_id"], annotation["score"]) for annotation in annotations] == [(1, 0.75), (0, 0.2)]
    # 40x60 is scaled by 0.6 to 24x36, of which the columns 2 to 34 are seen; the block 8..16 x 16..24 lies at 13.3..26.7 x 30..43.3
    assert annotations[0]["bbox"] == pytest.approx([30, 13.33, 13.33, 13.33], abs=0.01)
    assert annotations[1]["bbox"] == pytest.approx([3.33, 0, 13.33, 13.33], abs=0.01)
    assert annotations[0]["attributes"] == {"ebpg": None, "drop_pct": -2.5, "ratio": 0.5}
    assert len(result.anns) == 16  # 17 rows, one of them without a map
    assert {annotation["image_id"] for annotation in result.anns.values()} == set(result.imgs) - {
        number for number, image in result.imgs.items() if image["heatlas_id"] == BROKEN
    }


def test_coco_without_maps_says_so(tmp_path):
    claim(tmp_path / "out")
    layout = replace(LAYOUT, with_map=False, with_png=False, extra=())
    ParquetSink(str(tmp_path / "out"), layout).commit(
        Shard(0, 0, 1), [Row(Sample("a", "/a.png", 0), "ok", None, 4, 5, 0, 0, 0.5)]
    )
    done = export_store(tmp_path / "out", "coco", tmp_path / "coco.json")
    assert done.notes == ["the run stored no maps, so there are no boxes and no annotations"]
    result = json.loads((tmp_path / "coco.json").read_text())
    assert (len(result["images"]), result["annotations"]) == (1, [])
    with pytest.raises(UsageError, match="stored no maps"):
        export_store(tmp_path / "out", "overlays", tmp_path / "pictures")


GEOMETRIES = st.builds(
    lambda resize, size, source: Preprocess(size=size, resize=resize).geometry(*source),
    st.sampled_from(["shorter_side_crop", "squash", "pad"]),
    st.tuples(st.integers(8, 64), st.integers(8, 64)),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
)  # fmt: skip


@given(geometry=GEOMETRIES, corner=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)))
def test_boxes_go_back_to_where_the_image_had_them(geometry, corner):
    """`Geometry.box` is what the workers bring boxes to the network with."""
    box = (corner[0], corner[1], corner[0] + 0.5, corner[1] + 0.5)
    placed = box_on_image(box, geometry)
    if placed is None:
        return
    x, y, width, height = placed
    assert -1e-9 <= x <= x + width <= geometry.source[1] + 1e-6
    assert -1e-9 <= y <= y + height <= geometry.source[0] + 1e-6
    back = geometry.box((x, y, x + width, y + height))
    wanted = [
        box[0] * geometry.size[1],
        box[1] * geometry.size[0],
        box[2] * geometry.size[1],
        box[3] * geometry.size[0],
    ]
    inside = (-geometry.left, -geometry.top, geometry.resized[1] - geometry.left, geometry.resized[0] - geometry.top)
    low = [max(wanted[axis], inside[axis]) for axis in (0, 1)]
    high = [min(wanted[axis], inside[axis]) for axis in (2, 3)]
    assert list(back) == pytest.approx([*low, *high], abs=1e-6)


@given(geometry=GEOMETRIES)
def test_maps_keep_their_place_in_the_whole_image(geometry):
    assume(max(geometry.resized) <= 1024)
    whole = on_whole_image(np.ones(geometry.size, np.float32), geometry)
    assert whole.shape == geometry.resized
    seen = (
        slice(max(0, geometry.top), geometry.top + geometry.size[0]),
        slice(max(0, geometry.left), geometry.left + geometry.size[1]),
    )
    assert (whole[seen] == 1).all()
    assert whole.sum() == whole[seen].size


def test_hot_box_by_hand():
    map_ = np.zeros((10, 20))
    map_[2:4, 5:10] = 0.6
    map_[3, 7] = 1.0
    map_[8, 0] = 0.9  # hot too, but somewhere else
    assert hot_box(map_) == (5 / 20, 2 / 10, 10 / 20, 4 / 10)
    assert hot_box(np.zeros((3, 3))) is None


# --- FiftyOne


def test_fiftyone_folder_is_complete(store, tmp_path, capsys):
    """What its importer of this format asks for; the importer itself is tried where FiftyOne is installed."""
    assert export(store, "fiftyone", tmp_path / "fo") == 0
    assert "note: 1 images could not be read any more, so they are left out" in capsys.readouterr().out
    metadata = json.loads((tmp_path / "fo" / "metadata.json").read_text())
    assert "version" not in metadata  # or it is taken for a dump of the database
    samples = json.loads((tmp_path / "fo" / "samples.json").read_text())["samples"]
    assert len(samples) == 16
    assert GONE not in {sample["heatlas_id"] for sample in samples}
    for sample in samples:
        image = tmp_path / "fo" / sample["filepath"]
        assert image.resolve().is_relative_to((tmp_path / "fo" / "data").resolve())
        assert sample["x_odd_name" if "x_odd_name" in sample else "odd_name"] == "=2*3"
        if sample["heatlas_id"] == BROKEN:
            assert sample["tags"] == ["decode_error"]
            assert "explanation" not in sample
            continue
        assert picture(image) == ("RGB", (60, 40))
        # the image's shape at the network's scale
        assert picture(tmp_path / "fo" / sample["explanation"]["map_path"]) == ("L", (36, 24))
        assert sample["prediction"]["label"] == NAMES[1]
        assert sample["drop_pct"] == -2.5
    both = [sample for sample in samples if sample["heatlas_id"] == sorted(IDS)[0]]
    assert [sample["target"]["label"] for sample in both] == [NAMES[1], NAMES[0]]
    assert both[0]["filepath"] == both[1]["filepath"]
    assert both[0]["explanation"]["map_path"] != both[1]["explanation"]["map_path"]
    assert "confidence" in both[0]["prediction"]
    assert "confidence" not in both[1]["prediction"]


def test_fiftyone_imports_it(store, tmp_path):
    importers = pytest.importorskip(
        "fiftyone.utils.data.importers", reason="FiftyOne is not installed; see docs/export.md"
    )
    export(store, "fiftyone", tmp_path / "fo")
    importer = importers.FiftyOneDatasetImporter(str(tmp_path / "fo"))
    assert importer._is_legacy_format_data()
    importer = importer._to_legacy_importer()
    importer.setup()
    samples = list(importer)
    assert len(samples) == 16
    assert Path(samples[0].explanation.map_path).is_file()
    assert samples[0].prediction.label == NAMES[1]


@given(st.lists(st.text(min_size=1), unique=True))
def test_field_names_are_accepted_and_differ(columns):
    result = field_names(columns)
    assert list(result) == columns
    assert len(set(result.values())) == len(columns)
    assert all(name.isidentifier() and name.isascii() and not name.startswith("_") for name in result.values())


# --- cleanlab


def small_store(out: Path, classes: tuple[str, ...], rows: list[Row], score: str | None = None) -> Path:
    claim(out, score=score)
    layout = StoreLayout(
        SIZE, metrics=(), map_size=16, with_map=False, with_png=False, metadata={"class_names": list(classes)}
    )
    assert ParquetSink(str(out), layout).commit(Shard(0, 0, len(rows)), rows)
    return out


def explained(identity: str, label: int | None, prediction: int, target: int, score: float) -> Row:
    return Row(Sample(identity, f"/{identity}.png", label), "ok", None, 4, 5, prediction, target, score)


def test_two_classes_give_complete_probabilities(tmp_path):
    rows = [
        explained("a", 0, 1, 1, 0.7),
        explained("b", 1, 1, 1, 0.9),
        Row(Sample("c", "/c.png", 1), "read_error", "gone"),
    ]
    out = small_store(tmp_path / "out", ("no", "yes"), rows)
    done = export_store(out, "cleanlab", tmp_path / "c.parquet", columns=["method"])
    result = pq.read_table(tmp_path / "c.parquet").to_pandas()
    assert [row.tolist() for row in result["pred_probs"][:2]] == [
        pytest.approx([0.3, 0.7]),
        pytest.approx([0.1, 0.9]),
    ]
    assert result["pred_probs"][2] is None
    assert result["self_confidence"][:2].to_list() == pytest.approx([0.3, 0.9])
    assert result["label_name"].to_list() == ["no", "yes", "yes"]
    assert result["method"].to_list() == ["sise"] * 3
    assert done.notes[0].startswith("pred_probs is null for 1 image:")
    whole = result.dropna(subset=["pred_probs"])  # as cleanlab takes them
    probabilities = np.stack(list(whole["pred_probs"]))
    assert probabilities.shape == (2, 2)
    assert probabilities.sum(1) == pytest.approx([1, 1])


def test_of_many_classes_only_what_is_known_is_told(tmp_path):
    rows = [explained("a", 2, 1, 1, 0.5), explained("b", 0, 1, 1, 0.8), explained("c", 0, 1, 0, 0.1), explained("c", 0, 1, 1, 0.6),
            explained("d", None, 1, 1, 0.6), explained("e", 3, 1, 1, 0.3)]  # fmt: skip
    result = export_store(small_store(tmp_path / "out", ("p", "q", "r", "s"), rows), "cleanlab", tmp_path / "c.parquet")
    assert result.written == 5
    table = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert [entry["pred_probs"] for entry in table] == [None] * 5
    assert [entry["self_confidence"] for entry in table] == [None, None, 0.1, None, None]
    # the rest of 1, and no more than the predicted class has
    assert [entry["self_confidence_at_most"] for entry in table] == [0.5, pytest.approx(0.2), 0.1, None, 0.3]
    assert [(entry["known_classes"], entry["known_probs"]) for entry in table][2] == ([0, 1], [0.1, 0.6])
    assert any("--target both" in note for note in result.notes)


def test_sigmoid_scores_are_no_distribution(tmp_path):
    out = small_store(tmp_path / "out", ("no", "yes"), [explained("a", 0, 1, 1, 0.7)], score="sigmoid")
    export_store(out, "cleanlab", tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert (table[0]["pred_probs"], table[0]["self_confidence"], table[0]["self_confidence_at_most"]) == (
        None,
        None,
        None,
    )


# --- overlays


def test_overlays_have_safe_names_and_an_index(store, tmp_path, capsys):
    assert export(store, "overlays", tmp_path / "deep" / "pictures") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/deep/pictures: 15 pictures of 17 rows\n")
    assert "1 rows could not be read any more; see index.jsonl" in said
    lines = [json.loads(line) for line in (tmp_path / "deep/pictures/index.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in lines] == heatlas.open(store).table(["id"])["id"].to_pylist()
    assert {entry["id"] for entry in lines if entry["file"] is None} == {BROKEN, GONE}
    files = [entry["file"] for entry in lines if entry["file"]]
    assert len({entry.casefold() for entry in files}) == 15
    for name in files:
        path = tmp_path / "deep/pictures" / name
        assert path.parent == tmp_path / "deep/pictures"
        assert path.name.isascii()
        assert picture(path) == ("RGB", (2 * 32 + 4, 24))
    assert sorted(os.listdir(tmp_path / "deep/pictures")) == sorted([*files, "index.jsonl", MARKER])
    assert os.listdir(tmp_path) == ["deep"]


@given(ids=st.lists(st.text(), min_size=1, max_size=30), many=st.booleans())
def test_names_are_safe_and_differ_even_where_case_does_not_count(ids, many):
    names = FileNames(10**6 if many else len(ids))
    results = [names.new(identity, target, "sise") for identity in ids for target in (0, 1) if target == 0 or many]
    assert len({name.casefold() for name in dict.fromkeys(results)}) == len(set(results))
    assert len(set(results)) >= len(set(ids))
    for name in results:
        folder, _, last = name.rpartition("/")
        assert len(folder) == (2 if many else 0)
        assert set(last) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert not last.startswith((".", "-"))
        assert len(last) < 150


def test_names_that_would_be_the_same_do_not_overwrite_each_other(monkeypatch):
    monkeypatch.setattr("heatlas.pipeline.export.overlays.file_name", lambda identity, suffix: "same")
    names = FileNames(3)
    assert len({names.new(entry, 0, "sise") for entry in ("A", "a", "b")}) == 3


# --- places


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_there_stays_unless_overwrite_is_given(store, tmp_path, capsys, to):
    if to == "lance":
        pytest.importorskip("lance")
    place = tmp_path / "there"
    assert export(store, to, place, "--where", "n = 3") == 0
    before = sorted(path.name for path in tmp_path.iterdir())
    assert export(store, to, place) == 2
    assert f"--out {place} is there already" in capsys.readouterr().err
    assert export(store, to, place, "--overwrite", "--where", "n = 4") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == before == ["there"]


def test_a_folder_of_somebody_else_is_never_replaced(store, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("dear")
    for place in (tmp_path / "photos", store, store / "maps", store.parent):
        assert export(store, "hf", place, "--overwrite") == 2
        assert "is not empty and no heatlas export" in capsys.readouterr().err
    assert (tmp_path / "photos" / "mine.jpg").read_text() == "dear"
    assert export(store, "csv", tmp_path / "photos", "--overwrite") == 2
    assert "is a folder and this format is one file" in capsys.readouterr().err
    assert export(store, "hf", tmp_path / "photos" / "mine.jpg", "--overwrite") == 2
    assert "is a file and this format is a folder" in capsys.readouterr().err
    assert heatlas.open(store).count() == 17


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(StorageError, ("the part is gone",)), (KeyboardInterrupt, ()), (OSError, (28, "No space left on device"))],
)
def test_an_interrupted_export_leaves_nothing(store, tmp_path, monkeypatch, to, kind, arguments):
    real = StoreReader.batches

    def failing(self, *positional, **options):
        pieces = real(self, *positional, **options)
        yield next(pieces)
        raise kind(
            *arguments
        )  # made here: an error among the parameters would keep its frames, and a reader in them, to the end

    monkeypatch.setattr(StoreReader, "batches", failing)
    (tmp_path / "old").mkdir()
    with pytest.raises((StorageError, KeyboardInterrupt)) as raised:
        export_store(store, to, tmp_path / "new")
    assert os.listdir(tmp_path) == ["old"]
    if kind is StorageError:
        assert "the part is gone" in str(raised.value)


def test_a_killed_export_is_cleared_away_by_the_next_one(store, tmp_path):
    program = """
import os, signal, sys
from heatlas.pipeline.export import export
from heatlas.pipeline.export.export import Format, export_store
def killed(chosen, path):
    (path / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
export.FORMATS = {"hf": Format(killed, "folder", "row")}
export_store(sys.argv[1], "hf", sys.argv[2])
"""
    done = subprocess.run([sys.executable, "-c", program, str(store), str(tmp_path / "new")], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    assert not (tmp_path / "new").exists()
    alive = f".new.{socket.gethostname()}.{os.getpid()}.abc.tmp"
    elsewhere = ".new.another-host.1.abc.tmp"
    for name in (alive, elsewhere):
        (tmp_path / name).write_text("another export's")
    assert export(store, "hf", tmp_path / "new", "--columns", "id") == 0
    assert sorted(os.listdir(tmp_path)) == sorted(["new", alive, elsewhere])


# --- memory


@pytest.mark.parametrize("to", ["csv", "hf", "lance", "coco", "cleanlab", "fiftyone", "overlays"])
def test_one_piece_at_a_time(tmp_path, monkeypatch, to):
    """While a piece is read, all before the last one are forgotten."""
    if to == "lance":
        pytest.importorskip("lance")
    monkeypatch.setattr(parquet_bytes, "ROW_GROUP_BYTES", 2000)
    claim(tmp_path / "out")
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    layout = replace(LAYOUT, extra=())
    rows = [
        Row(Sample(f"{n:03d}", str(tmp_path / "a.png"), 0), "ok", None, 40, 60, 1, 1, 0.5, map=map_at(n % 10, n % 20))
        for n in range(40)
    ]
    ParquetSink(str(tmp_path / "out"), layout).commit(Shard(0, 0, 40), rows)
    alive: list[weakref.ref] = []
    most = [0, 0]
    real = StoreReader.batches

    def watched(self, *arguments, **options):
        for piece in real(self, *arguments, **options):
            most[0] = max(most[0], sum(entry() is not None for entry in alive))
            most[1] += 1
            alive.append(weakref.ref(piece))
            yield piece

    monkeypatch.setattr(StoreReader, "batches", watched)
    export_store(tmp_path / "out", to, tmp_path / "new")
    assert most[1] >= 8
    assert most[0] <= (4 if to == "lance" else 2)  # Lance reads a few batches ahead


# --- what users type


@pytest.mark.parametrize(("arguments", "said"), [
    (["--format", "cvs", "--out", "x"], "there is no such format; did you mean 'csv'?"),
    (["--format", "csv"], "--out"),
    (["--out", "x"], "--format"),
    (["--format", "csv", "--out", "s3://bucket/x.csv"], "local paths only"),
    (["--format", "csv", "--out", ""], "an empty path names no place"),
    (["--format", "csv", "--out", "/"], "names no file"),
    (["--format", "csv", "--out", "x", "--where", "nonsense >"], "DuckDB refuses 'nonsense >'"),
    (["--format", "csv", "--out", "x", "--where", "label = 77"], "no row of"),
    (["--format", "csv", "--out", "x", "--where", "TRUE) UNION (SELECT 1"], "DuckDB refuses"),
    (["--format", "csv", "--out", "x", "--columns", "id", "scroe"], "there is no such column; did you mean 'score'?"),
    (["--format", "csv", "--out", "x", "--columns", "map"], "does not fit in a cell"),
    (["--format", "overlays", "--out", "x", "--columns", "id"], "--columns has no meaning for --format overlays"),
    (["--format", "cleanlab", "--out", "x", "--columns", "label"], "this format has it anyway"),
    (["--format", "csv", "--out", "x", "--ids", "nowhere.txt"], "cannot read --ids nowhere.txt"),
    (["--format", "csv", "--out", "x", "--ids", "ids.txt"], "lists 1 id that no sample has: A.pgn"),
])  # fmt: skip
def test_bad_options(store, tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("ids.txt").write_text("A.png\nA.pgn\n")
    assert main(["export", str(store), *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert os.listdir(tmp_path) == ["ids.txt"]


def test_a_place_that_cannot_be_written(store, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert export(store, "csv", tmp_path / "file" / "below.csv") == 1
    assert "cannot write" in capsys.readouterr().err


def test_python_says_what_the_command_says(store, tmp_path):
    atlas = heatlas.open(store)
    done = atlas.export("csv", tmp_path / "m.csv", where="n < 3", columns=["id"])
    assert (done.format, done.rows, done.written) == ("csv", 4, 4)
    assert done.text() == f"{tmp_path}/m.csv: 4 rows"
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    assert heatlas.open(copy).compact().removed == 0  # its plan says one shard
