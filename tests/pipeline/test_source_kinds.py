"""Sources of every kind: which one is meant, what each refuses, and that nothing is unpacked, followed or run unasked."""

from __future__ import annotations

import json
import os
import pathlib
import uuid
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import SampleError
from heatlas.pipeline.shards import EXTRA
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.detection import detect_source, item_source, place_named, source_by_prefix
from heatlas.pipeline.sources.listing.options import SourceOptions
from heatlas.pipeline.sources.listing.place import could_match, expand_braces
from heatlas.pipeline.sources.reading.cells import _OPEN, OPEN_FILES
from heatlas.pipeline.sources.reading.confinement import check_data_root
from heatlas.pipeline.sources.reading.reader import FsspecReader

from ..support import data_sets
from ..support.listings import list_samples, refusal
from ..support.tiny_run import draw, draw_all

EXTRA_TOO = SourceOptions(extra=True)


def extras(data: object, **how: Any) -> dict[str, list]:
    table = list_source(str(data), SourceOptions(extra=True, **how)).listing
    return {name.removeprefix(EXTRA): table[name].to_pylist() for name in table.column_names if name.startswith(EXTRA)}


# which kind


def kind(data: object) -> str:
    return detect_source(str(data), SourceOptions()).source.name


def test_kind_is_seen_from_what_lies_there(tmp_path: pathlib.Path):
    draw_all(tmp_path / "images", 3)
    data_sets.write_tars(tmp_path / "tars", [1])
    data_sets.write_parquet(tmp_path / "pq" / "a.parquet", range(2))
    pq.write_table(pa.table({"uri": ["a.png"]}), tmp_path / "manifest.parquet")
    coco = data_sets.write_coco(tmp_path / "coco", 1)
    data_sets.write_voc(tmp_path / "voc", 1)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "state.json").write_text("{}")
    (tmp_path / "m.csv").write_text("uri\na.png\n")
    assert kind(tmp_path / "images") == kind(tmp_path / "images" / "ant" / "000.png") == "folder"
    assert kind(f"{tmp_path}/images/*/*.png") == "folder"
    assert kind(tmp_path / "tars") == kind(f"{tmp_path}/tars/*.tar") == "tar"
    assert kind(tmp_path / "pq") == kind(tmp_path / "pq" / "a.parquet") == "parquet"
    assert kind(tmp_path / "manifest.parquet") == kind(tmp_path / "m.csv") == "manifest"
    assert kind(coco) == "coco"
    assert kind(tmp_path / "voc") == "voc"
    assert kind(tmp_path / "hf") == "hf"
    assert kind("some.module:function") == kind("python:m:f") == "python"
    assert kind("torchvision:CIFAR10@/data") == "torchvision"


def test_two_kinds_in_one_folder_are_refused_with_both_prefixes(tmp_path: pathlib.Path):
    draw(tmp_path / "two.png", 0)
    data_sets.write_tars(tmp_path, [1])
    text = refusal(tmp_path)
    assert f"--data folder:{tmp_path} (image folder) or tar:{tmp_path} (WebDataset tars)" in text
    assert len(list_samples(f"folder:{tmp_path}")) == len(list_samples(f"tar:{tmp_path}")) == 1


def test_a_table_with_paths_and_bytes_is_refused_with_both_prefixes(tmp_path: pathlib.Path):
    draw(tmp_path / "a.png", 0)
    pq.write_table(pa.table({"uri": ["a.png"], "image": [(tmp_path / "a.png").read_bytes()]}), tmp_path / "t.parquet")
    text = refusal(tmp_path / "t.parquet")
    assert "manifest:" in text
    assert "parquet:" in text
    assert list_samples(f"manifest:{tmp_path}/t.parquet")["uri"].to_pylist() == [f"{tmp_path}/a.png"]
    assert list_samples(f"parquet:{tmp_path}/t.parquet")["uri"][0].as_py().startswith("parquet://image/0+0/")


def test_annotations_beside_their_images(tmp_path: pathlib.Path):
    draw(tmp_path / "a.png", 0)
    (tmp_path / "a.xml").write_text(data_sets.voc_xml("a.png", [("ant", [1, 2, 3, 4])]))
    assert "folder:" in refusal(tmp_path)
    assert "voc:" in refusal(tmp_path)
    [row] = list_samples(f"voc:{tmp_path}").to_pylist()
    assert row == {"id": "a", "uri": f"{tmp_path}/a.png", "label": "ant", "boxes": [[1, 2, 3, 4]], "mask_uri": None}
    (tmp_path / "_annotations.coco.json").write_text("{}")
    assert f"coco:{tmp_path}/FILE.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("cooo:x.json", "no source 'cooo'; did you mean 'coco'?"),
        ("coco:", "names nothing; write coco:PATH"),
        ("tar:/nowhere/x.tar", "there is no file or folder /nowhere/x.tar"),
        ("/nowhere/{000..002}.tar", "there is no file /nowhere/000.tar"),
        ("/nowhere/*.tar", "there is no file /nowhere/*.tar"),
        ("/nowhere/{9..1}.tar", "counts down"),
        ("/nowhere/{1..9999}{1..9999}.tar", "more than the limit of 1000000"),
        ("python:no module", "must be python:package.module:function"),
        ("no_such_module_1:make", "there is no Python module 'no_such_module_1'"),
        ("torchvision:CIFAR@/x", "torchvision has no data set 'CIFAR'; did you mean 'CIFAR10'?"),
        ("torchvision:CIFAR10", "needs the folder where it lies: torchvision:CIFAR10@ROOT"),
        ("torchvision:CIFAR10@/nowhere?trian=true", "takes no argument 'trian'"),
        ("torchvision:CIFAR10@/nowhere?download=true", "takes no argument 'download' here"),
        ("torchvision:CIFAR10@/nowhere?x", "must be NAME=VALUE&NAME=VALUE"),
        ("torchvision:CIFAR10@/nowhere", "heatlas downloads no data sets"),
        ("torchvision:FakeData?size=3&image_set=val", "takes no argument 'image_set'"),
    ],
)
def test_what_is_no_data_set_is_refused(data: str, expected: str):
    assert expected in refusal(data)


def test_a_local_file_with_a_colon_is_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coco:m.csv").write_text("uri\na.png\n")
    assert source_by_prefix("coco:m.csv") is None
    assert list_samples("coco:m.csv")["id"].to_pylist() == ["a.png"]
    assert source_by_prefix("memory://x/y.csv") is None
    assert source_by_prefix("simplecache::memory://x") is None
    assert place_named("coco:/a/b.json") == "/a/b.json"
    assert place_named("torchvision:CIFAR10@/root?train=true") == "/root"
    assert place_named("torchvision:FakeData") is place_named("python:a:b") is None
    assert item_source("torchvision:CIFAR10@root?train=true") == f"torchvision:CIFAR10@{tmp_path}/root?train=true"
    assert item_source("a.b:make") == "python:a.b:make"
    assert item_source("s3://bucket/x") is None


@pytest.mark.parametrize("rows_of", ["folder:", "tar:", "hf:", "parquet:", "manifest:", "python:"])
def test_rows_per_annotation_need_annotations(rows_of: str):
    assert "--rows annotation is for coco:, voc:, torchvision:" in refusal(
        f"{rows_of}a:b", SourceOptions(rows="annotation")
    )


def test_patterns(tmp_path: pathlib.Path):
    assert list(expand_braces("a-{08..11}-{x,y}", "")) == [f"a-{n}-{c}" for n in ("08", "09", "10", "11") for c in "xy"]
    assert list(expand_braces("{8..10}", "")) == ["8", "9", "10"]
    draw_all(tmp_path / "p", 6)
    listing = list_samples(f"{tmp_path}/p/{{ant,bee}}/*.png")
    assert listing["id"].to_pylist() == ["ant/000.png", "ant/003.png", "bee/001.png", "bee/004.png"]
    assert listing["label"].to_pylist() == ["ant", "ant", "bee", "bee"]
    (tmp_path / "odd[1].csv").write_text("uri\nx.png\n")
    assert len(list_samples(str(tmp_path / "odd[1].csv"))) == 1, "a file of exactly that name is no pattern"
    assert "several kinds" in refusal(f"{tmp_path}/{{odd*.csv,p/ant/000.png}}")
    assert not could_match("/a/*.csv", "/a/out/_show/x.png")
    assert could_match("/a/**/*.png", "/a/out/_show/x.png")


def test_manifests_of_a_pattern_are_one_data_set(tmp_path: pathlib.Path):
    for name, rows in {"a/m.csv": "uri,n\nx.png,1\n", "b/m.csv": "uri,n,only\ny.png,1.5,here\n"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(rows)
    listing = list_source(f"{tmp_path}/*/m.csv", EXTRA_TOO).listing
    assert listing["uri"].to_pylist() == [f"{tmp_path}/a/x.png", f"{tmp_path}/b/y.png"]
    assert extras(f"{tmp_path}/*/m.csv") == {"n": [1.0, 1.5], "only": [None, "here"]}


# tars


def test_cells_are_read_in_any_order_and_files_are_closed(tmp_path: pathlib.Path):
    values = [f"image {number}".encode() * 10 for number in range(300)]
    for name in "abcdef":
        pq.write_table(pa.table({"a/b c": values}), tmp_path / f"{name}.parquet", row_group_size=130)
    listing = list_samples(str(tmp_path))
    order = np.random.default_rng(0).permutation(len(listing)).tolist()[:200]
    for row in [0, 1, 2, 299, 5, 131, *order]:
        assert FsspecReader().read(listing["uri"][row].as_py()) == values[row % 300]
    assert len(_OPEN) <= OPEN_FILES
    assert listing["id"][300].as_py() == "b.parquet/000000000"


def test_a_huge_row_group_passes_through_a_small_window(tmp_path: pathlib.Path):
    """64 MB of images in one row group, read one by one: the memory of Arrow's pool stays far below."""
    random = np.random.default_rng(0)
    values = [random.bytes(1 << 20) for _ in range(64)]
    pq.write_table(
        pa.table({"image": values}),
        tmp_path / "a.parquet",
        compression="none",
        use_dictionary=False,
        data_page_size=1 << 20,
        write_batch_size=1,
    )
    uris = list_samples(str(tmp_path / "a.parquet"))["uri"].to_pylist()
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    for uri, value in zip(uris, values, strict=True):
        assert FsspecReader().read(uri) == value
        most = max(most, pool.bytes_allocated() - before)
    assert most < 32 << 20, "four blocks of 4 MB, and what is being read"


@pytest.mark.parametrize(
    ("columns", "how", "expected"),
    [
        ({"n": [1]}, {}, "has no column 'uri' for 'uri'"),
        ({"a": [b"x"], "b": [b"y"]}, {}, "several columns with image bytes: 'a', 'b'; choose with --columns.image a"),
        ({"a": [b"x"], "b": ["y"]}, {"image": "c"}, "has no column 'c'"),
        ({"a": [b"x"], "bee": ["y"]}, {"image": "bee"}, "column 'bee' of t.parquet is string, not image bytes"),
        ({"a": [b"x"]}, {"label": "kind"}, "has no column 'kind' for 'label'"),
        ({"a": [b"x"], "boxes": [[[1.0, 2.0]]]}, {}, "the boxes in row 1 of t.parquet must be lists"),
        ({"a": [b"x"], "boxes": [1]}, {}, "which cannot be boxes"),
        ({"a": [b"x", b"y"], "id": ["1", None]}, {}, "row 2 of t.parquet has no id"),
        ({"a": [b"x", b"y"], "id": ["1", "1"]}, {}, "the id '1' names two samples"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(tmp_path: pathlib.Path, columns: dict, how: dict, expected: str):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert expected in refusal(tmp_path / "t.parquet", SourceOptions(columns=how))


def test_damaged_parquet(tmp_path: pathlib.Path):
    data_sets.write_parquet(tmp_path / "a.parquet", range(4))
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-20])
    assert "cannot read" in refusal(tmp_path / "a.parquet")
    assert "cannot read a.parquet as Parquet" in refusal(f"parquet:{tmp_path}")
    (tmp_path / "a.parquet").write_bytes(data)
    hole = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0).data_page_offset
    (tmp_path / "a.parquet").write_bytes(data[:hole] + b"\0" * 40 + data[hole + 40 :])
    uris = list_samples(str(tmp_path / "a.parquet"))["uri"].to_pylist()
    with pytest.raises(SampleError, match=r"cannot read parquet://image/0\+0/"):
        FsspecReader().read(uris[0])
    assert FsspecReader().read(uris[3])[:4] == b"\x89PNG", "another row group is whole"


def test_images_by_path_in_a_struct_lie_beside_the_file_or_inside_the_root(tmp_path: pathlib.Path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "a.png").write_bytes(b"inside")
    paths = ["a.png", "../secret.png", str(tmp_path / "secret.png"), None]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([*({"bytes": None, "path": path} for path in paths), None], kind)
    pq.write_table(pa.table({"image": cells}), root / "t.parquet")
    uris = list_samples(str(root / "t.parquet"))["uri"].to_pylist()
    assert [FsspecReader().read(uri) for uri in uris[:3]] == [b"inside", b"secret", b"secret"]
    confined = FsspecReader(check_data_root(str(root)))
    assert confined.read(uris[0]) == b"inside"
    for uri in uris[1:3]:
        with pytest.raises(SampleError, match="outside of the data root"):
            confined.read(uri)
    for uri in uris[3:]:
        with pytest.raises(SampleError, match="the cell is empty"):
            confined.read(uri)


def test_class_label_outside_of_its_names_is_refused_and_minus_one_is_none(tmp_path: pathlib.Path):
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for labels, expected in (([0, -1, 1], ["a", None, "b"]), ([0, 2, 1], None)):
        table = pa.table({"image": [b"x"] * 3, "label": labels}).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "t.parquet")
        if expected:
            assert list_samples(str(tmp_path / "t.parquet"))["label"].to_pylist() == expected
        else:
            assert "is outside of its 2 class names: 2" in refusal(tmp_path / "t.parquet")


# Hugging Face directories


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hf")
    data_sets.write_hf(folder / "set", 5, num_shards=2)
    return folder / "set"


def test_saved_directory_remote_and_local_are_the_same(saved: pathlib.Path):
    root = f"/hf-{uuid.uuid4().hex}"
    fsspec.filesystem("memory").put(str(saved), root, recursive=True)
    local, remote = list_samples(str(saved)), list_samples(f"memory:/{root}")
    assert local.drop(["uri"]).equals(remote.drop(["uri"]))
    read = [[FsspecReader().read(uri) for uri in entry["uri"].to_pylist()] for entry in (local, remote)]
    assert read[0] == read[1]
    assert all(image[:4] == b"\x89PNG" for image in read[0])


def test_splits_are_chosen_and_damage_is_refused(saved: pathlib.Path, tmp_path: pathlib.Path):
    import shutil

    for split in ("train", "test"):
        shutil.copytree(saved, tmp_path / "set" / split)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert f"has 2 splits; choose one: hf:{tmp_path}/set/test or hf:{tmp_path}/set/train" in refusal(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "test")
    assert len(list_samples(str(tmp_path / "set"))) == 5
    train = tmp_path / "set" / "train"
    file = sorted(train.glob("*.arrow"))[1]
    os.truncate(file, file.stat().st_size - 3000)
    assert f"cannot read {file.name} of" in refusal(train)
    (train / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../etc/passwd"}]}))
    assert "which lies elsewhere" in refusal(train)
    (train / "state.json").write_text("{")
    assert "state.json" in refusal(train)
    (train / "state.json").unlink()
    assert "has no state.json" in refusal(f"hf:{train}")


# COCO
