"""`heatlas export`: every format opened with its own library, hostile ids and class names, and nothing half."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import heatlas
import numpy as np
import pandas as pd
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.export.csv_metrics import cell
from heatlas.pipeline.export.export import export_store
from heatlas.pipeline.export.fiftyone_dataset import field_names
from heatlas.pipeline.export.overlays import FileNames
from heatlas.pipeline.export.place import MARKER
from heatlas.pipeline.store.merge_parts import same
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.workers.samples import Row, Sample, Shard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ..support.exported_store import BROKEN, GONE, IDS, LAYOUT, NAMES, claim, export, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("export"))


def picture(path: Path) -> tuple[str, tuple[int, int]]:
    with Image.open(path) as image:
        return image.mode, image.size


def test_csv_opens_with_every_row_and_exact_numbers(store, tmp_path, capsys):
    assert export(store, "csv", tmp_path / "m.csv") == 0
    assert capsys.readouterr().out == f"{tmp_path}/m.csv: 17 rows\n"
    table = heatlas.open(store).to_pandas(names=False)
    result = pd.read_csv(tmp_path / "m.csv", keep_default_na=False, na_values=[""])
    assert len(result) == len(table) == 17
    plain = [column for column in table.columns if column not in ("map", "map_png", "mask_counts", "top_k", "box")]
    assert list(result.columns) == [cell(column) for column in plain] + ["target_name"]
    for name in ("confidence", "logit", "drop_pct", "label", "n", "height"):
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
    more = (
        "--ids",
        tmp_path / "ids.txt",
        "--where",
        "status = 'ok' -- with a comment",
        "--columns",
        "id,confidence",
        "n",
    )
    assert export(store, "csv", tmp_path / "m.csv", *more) == 0
    result = pd.read_csv(tmp_path / "m.csv")
    assert result.columns.to_list() == ["id", "confidence", "n"]
    assert result["id"].to_list() == ["A.png", "ä ö"]
    done = export_store(store, "csv", tmp_path / "two.csv", where="target = 0")
    assert (done.rows, done.written, done.notes) == (1, 1, [])
    assert export(store, "csv", tmp_path / "three.csv", "--where", "n > 13", "--json") == 0
    assert json.loads(capsys.readouterr().out.split("rows\n")[-1])["rows"] == 2


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
    assert result.with_format("numpy")[0]["confidence"] == pytest.approx(0.75)


def test_load_from_disk_of_some_columns(store, tmp_path):
    datasets = pytest.importorskip("datasets")
    assert export(store, "hf", tmp_path / "hf", "--columns", "id", "confidence", "--where", "n = 3") == 0
    result = datasets.load_from_disk(tmp_path / "hf")
    assert result.column_names == ["id", "confidence"]
    assert len(result) == 1
    assert json.loads((tmp_path / "hf" / MARKER).read_text())["where"] == "n = 3"


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
