"""Sources of every kind: which one is meant, what each refuses, and that nothing is unpacked, followed or run unasked."""

from __future__ import annotations

import json
import os
import pathlib
import tarfile
import uuid
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import DataError, SampleError, UsageError
from heatlas.pipeline.shards import EXTRA
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.detection import detect_source, item_source, place_named, source_by_prefix
from heatlas.pipeline.sources.listing.options import SourceOptions
from heatlas.pipeline.sources.listing.place import could_match, expand_braces, find_place
from heatlas.pipeline.sources.reading.cells import _OPEN, OPEN_FILES
from heatlas.pipeline.sources.reading.confinement import check_data_root
from heatlas.pipeline.sources.reading.container_uri import SCHEMES, is_container_uri, mask_uri, parse_uri, range_uri
from heatlas.pipeline.sources.reading.items import png
from heatlas.pipeline.sources.reading.reader import FsspecReader

from ..support import data_sets
from ..support.listings import list_samples
from ..support.tiny_run import draw, draw_all, importable_factory

EXTRA_TOO = SourceOptions(extra=True)


def refusal(data: object, options: SourceOptions | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        list_source(str(data), options or SourceOptions())
    return str(caught.value)


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


def test_a_tar_is_never_unpacked_and_its_names_are_no_paths(tmp_path: pathlib.Path):
    image = data_sets.png(0, tmp_path)
    data_sets.write_tar(tmp_path / "t.tar", [("../../evil.png", image), ("/etc/x.png", image), ("./ok.png", image)])
    with tarfile.open(tmp_path / "t.tar", "a") as tar:
        for type_, target in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "ok.png")):
            link = tarfile.TarInfo(f"link{type_!r}.png")
            link.type, link.linkname = type_, target
            tar.addfile(link)
    before = sorted(tmp_path.parent.rglob("*"))
    listing = list_samples(str(tmp_path / "t.tar"))
    assert listing["id"].to_pylist() == ["t.tar/../../evil", "t.tar//etc/x", "t.tar/ok"]
    assert all(FsspecReader().read(uri) == image for uri in listing["uri"].to_pylist())
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (-9000, "its end mark is missing; if it is whole, append one with `truncate -s +1024`"),
        (3000, "is cut short: '000.png' ends at byte"),
        (6000, "is cut short: its end mark is missing"),
        (0, "is damaged or not a tar: empty file"),
    ],
)
def test_a_tar_that_is_cut_short_is_refused(tmp_path: pathlib.Path, cut: int, expected: str):
    data_sets.write_tars(tmp_path, [2])
    path = tmp_path / "train-000.tar"
    data = path.read_bytes().rstrip(b"\0")
    whole = -(-len(data) // 512) * 512
    path.write_bytes(path.read_bytes()[:whole] if cut < 0 else path.read_bytes()[:cut])
    assert expected in refusal(path)
    assert "train-000.tar" in refusal(path)


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path: pathlib.Path):
    data_sets.write_tars(tmp_path, [3])
    path = tmp_path / "train-000.tar"
    data = bytearray(path.read_bytes())
    place = bytes(data).index(b"001.png\0")
    data[place : place + 600] = b"#" * 600
    path.write_bytes(data)
    assert "is damaged: there is no header at byte" in refusal(path)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("a.txt", b"words")], "holds no images"),
        ([("a.png", b"x"), ("b.png", b"y"), ("a.cls", b"1")], "do not follow each other"),
        ([("a.png", b"x"), ("a.png", b"y")], "is twice"),
        ([("a.png", b"x"), ("a.jpg", b"y")], "several images for 'a': png, jpg; choose with --columns.image png"),
        ([("a.png", b"x"), ("a.json", b"{")], "a.json in t.tar is not JSON"),
        ([("a.png", b"x"), ("a.json", b"[1]")], "must be a JSON object"),
        ([("a.png", b"x"), ("a.json", b'{"boxes": [[1, 2, 3]]}')], "the boxes in a.json of t.tar must be lists"),
    ],
)
def test_a_tar_that_is_no_webdataset_is_refused(tmp_path: pathlib.Path, members: list, expected: str):
    data_sets.write_tar(tmp_path / "t.tar", members)
    assert expected in refusal(tmp_path / "t.tar")


def test_parts_of_a_webdataset(tmp_path: pathlib.Path):
    data_sets.write_tar(tmp_path / "t.tar", [
        ("d/a.left.jpg", b"left"), ("d/a.right.jpg", b"right"), ("d/a.mask.png", b"mask"), ("d/a.txt", "schön".encode()),
        ("d/a.json", b'{"label": "cat", "n": 1, "list": [1, 2], "flag": true}'),
        ("b.JPG", b"b"), ("b.cls", b" dog\n"), ("b.json", b'{"label": "cat", "n": 2.5}'),
    ])  # fmt: skip
    assert "several images for 'd/a': left.jpg, right.jpg" in refusal(tmp_path / "t.tar")
    options = SourceOptions(columns={"image": "left.jpg"}, extra=True)
    [row] = list_source(str(tmp_path / "t.tar"), options).listing.to_pylist()
    assert (row["id"], row["label"]) == ("t.tar/d/a", "cat")
    assert FsspecReader().read(row["uri"]) == b"left"
    assert FsspecReader().read(row["mask_uri"]) == b"mask"
    assert {name: row[EXTRA + name] for name in ("n", "list", "flag", "txt")} == {
        "n": 1,
        "list": "[1, 2]",
        "flag": True,
        "txt": "schön",
    }
    assert list_samples(str(tmp_path / "t.tar"), {"image": "jpg"})["label"].to_pylist() == ["dog"]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar"])
def test_compressed_tars_are_refused(tmp_path: pathlib.Path, name: str):
    with tarfile.open(tmp_path / name, "w:gz") as tar:
        tar.add(__file__, "a.png")
    assert "compressed" in refusal(tmp_path / name)


def test_a_tar_that_shrank_since_is_an_error_row(tmp_path: pathlib.Path):
    data_sets.write_tars(tmp_path, [1])
    uri = list_samples(str(tmp_path))["uri"][0].as_py()
    os.truncate(tmp_path / "train-000.tar", 700)
    with pytest.raises(SampleError, match="is shorter than when it was listed"):
        FsspecReader().read(uri)


# Parquet


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
    read = [[FsspecReader().read(uri) for uri in one["uri"].to_pylist()] for one in (local, remote)]
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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"images": None}, "'images' must be a list"),
        ({"images": [{"id": 1}]}, "an element of 'images' in"),
        ({"images": [7]}, "not an object"),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "the image id 1 of"),
        (
            {"images": [{"id": 0, "file_name": "000.png"}, {"id": 1, "file_name": "000.png"}]},
            "the id '000.png' names two samples",
        ),
        ({"images": []}, "lists no"),
        ({"annotations": [{"id": 5, "image_id": 9, "category_id": 0}]}, "annotation 5 of"),
        (
            {"annotations": [{"id": 5, "image_id": 0, "category_id": 9}]},
            "names category 9, which is not among its categories",
        ),
        ({"annotations": [{"id": 5, "image_id": 0, "category_id": 0, "bbox": [1, 2]}]}, "annotation 5 of"),
        ({"annotations": [{"id": 5, "category_id": 0}]}, "has image_id None"),
    ],
)
def test_coco_that_does_not_fit_together_is_refused(tmp_path: pathlib.Path, change: dict, expected: str):
    path = data_sets.write_coco(tmp_path, 1, change)
    text = refusal(f"coco:{path}")
    assert expected in text or ("images" in change and not change["images"] and "no list 'images'" in text)


def test_coco_file_that_is_cut_short_or_no_coco(tmp_path: pathlib.Path):
    path = data_sets.write_coco(tmp_path, 2)
    content = path.read_text()
    for end in (1, 60, len(content) // 2, len(content) - 1):
        path.write_text(content[:end])
        assert "is not readable JSON" in refusal(path)
    for text, expected in (
        ("[]", "it does not begin with {"),
        ("{}", "no list 'images'"),
        ('{"a": ' + "[" * 100_000, "is not readable"),
    ):
        path.write_text(text)
        assert expected in refusal(path)


def test_coco_images_are_looked_for_and_missing_ones_are_rows(tmp_path: pathlib.Path):
    path = data_sets.write_coco(tmp_path / "c", 3)
    (tmp_path / "c" / "val" / "001.png").unlink()
    uris = list_samples(str(path))["uri"].to_pylist()
    assert uris == [f"{tmp_path}/c/val/00{n}.png" for n in range(3)]
    with pytest.raises(SampleError, match="no such file"):
        FsspecReader().read(uris[1])
    (tmp_path / "c" / "val").rename(tmp_path / "elsewhere")
    text = refusal(path)
    assert "none of 3 images" in text
    assert "--images FOLDER" in text
    for how in ({"images": str(tmp_path / "elsewhere")}, {"data_root": str(tmp_path / "elsewhere")}):
        listing = list_source(str(path), SourceOptions(**how)).listing
        assert listing["uri"][0].as_py() == f"{tmp_path}/elsewhere/000.png"
    assert "there is no file or folder" in refusal(path, SourceOptions(images=str(tmp_path / "nowhere")))


def test_coco_cannot_lead_out_of_the_root(tmp_path: pathlib.Path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    root = tmp_path / "root"
    images = [
        {"id": 1, "file_name": "../secret.png"},
        {"id": 2, "file_name": str(tmp_path / "secret.png")},
        {"id": 3, "file_name": "val/000.png"},
    ]
    path = data_sets.write_coco(root, 1, {"images": images, "annotations": []})
    confined = FsspecReader(check_data_root(str(root)))
    uris = list_source(str(path), SourceOptions(data_root=str(root))).listing["uri"].to_pylist()
    outcomes = []
    for uri in uris:
        try:
            outcomes.append(confined.read(uri)[:4])
        except SampleError as error:
            outcomes.append("outside of the data root" in str(error))
    assert sorted(map(str, outcomes)) == ["True", "True", str(b"\x89PNG")]


def test_coco_text_of_any_script_and_masks_by_their_bytes(tmp_path: pathlib.Path):
    """Offsets are in bytes, also behind text that is not ASCII, escaped or not."""
    path = data_sets.write_coco(tmp_path, 3)
    content = json.loads(path.read_text())
    content["categories"][1]["name"] = "Bienchen 蜂 é"
    content["images"][0]["where"] = "Überall"
    for escaped in (True, False):
        path.write_text(json.dumps(content, ensure_ascii=escaped, indent=1))
        listing = list_source(str(path), EXTRA_TOO).listing
        assert listing["label"].to_pylist() == ["ant", "Bienchen 蜂 é", "cat"]
        assert listing[f"{EXTRA}where"].to_pylist() == ["Überall", None, None]
        for number, uri in enumerate(listing["mask_uri"].to_pylist()):
            mask = data_sets.pixels_of(FsspecReader().read(uri)) > 0
            x0, y0, x1, y1 = data_sets.square(number)
            expected = np.zeros((data_sets.HEIGHT, data_sets.WIDTH), bool)
            expected[y0:y1, x0:x1] = True
            assert (mask == expected).all()


def test_coco_larger_than_the_window(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    from heatlas.pipeline.sources.listing import json_stream

    path = data_sets.write_coco(tmp_path, 9)
    whole = list_source(str(path), EXTRA_TOO).listing
    for window in (1, 7, 100):
        monkeypatch.setattr(json_stream, "WINDOW", window)
        assert list_source(str(path), EXTRA_TOO).listing.equals(whole)


def test_coco_label_is_the_largest_category_and_crowds_do_not_count(tmp_path: pathlib.Path):
    def annotation(identity: int, category: int, area: float, **more: Any) -> dict:
        return {"id": identity, "image_id": 0, "category_id": category, "area": area, "bbox": [0, 0, 2, 3], **more}

    rows = [annotation(1, 0, 50), annotation(2, 10, 30), annotation(3, 10, 30), annotation(4, 20, 900, iscrowd=1)]
    path = data_sets.write_coco(tmp_path, 2, {"annotations": rows})
    first, second = list_samples(str(path)).to_pylist()
    assert (first["label"], first["boxes"]) == ("bee", [[0, 0, 2, 3], [0, 0, 2, 3]])
    assert (second["label"], second["boxes"], second["mask_uri"]) == (None, [], None)
    ids = list_source(str(path), SourceOptions(rows="annotation")).listing["id"].to_pylist()
    assert ids == ["000.png#1", "000.png#2", "000.png#3"]


# VOC


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<annotation>", "is not readable XML"),
        ("<html/>", "begins with <html>"),
        ("<annotation><object><bndbox/></object></annotation>", "has no <name>"),
        ("<annotation><object><name>a</name></object></annotation>", "must have xmin, ymin, xmax and ymax"),
        ("x" * (5 << 20), "more than the limit"),
        (
            '<!DOCTYPE a [<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)) + "]><annotation>&a11;</annotation>",
            "is not readable XML",
        ),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "is not readable XML"),
    ],
)  # fmt: skip
def test_voc_that_cannot_be_read_is_refused(tmp_path: pathlib.Path, xml: str, expected: str):
    data_sets.write_voc(tmp_path, 1)
    (tmp_path / "Annotations" / "2007_000.xml").write_text(xml)
    text = refusal(tmp_path)
    assert expected in text
    assert "2007_000.xml" in text


def test_voc_files_that_are_missing_or_lead_elsewhere(tmp_path: pathlib.Path):
    data_sets.write_voc(tmp_path, 2)
    (tmp_path / "Annotations" / "2007_000.xml").write_text(data_sets.voc_xml("../../secret.png", []))
    (tmp_path / "JPEGImages" / "2007_001.png").unlink()
    assert list_samples(str(tmp_path))["uri"].to_pylist() == [f"{tmp_path}/JPEGImages/2007_00{n}.png" for n in (0, 1)]
    for path in (tmp_path / "Annotations").iterdir():
        path.unlink()
    assert "there is no .xml in" in refusal(f"voc:{tmp_path}")
    assert "is not a folder" in refusal(f"voc:{tmp_path}/JPEGImages/2007_000.png")


# data sets in Python


def test_python_factories_that_fail(tmp_path: pathlib.Path):
    with importable_factory(tmp_path, data_sets.FACTORY):
        assert "tiny_net:broken() failed: RuntimeError: no licence" in refusal("tiny_net:broken")
        assert "gives int, which has no length" in refusal("tiny_net:nothing")
        assert "has no 'squars'; did you mean 'squares'?" in refusal("tiny_net:squars")
        assert list_samples("tiny_net:squares")["label"].to_pylist() == ["ant", "bee", "cat"] * 2
        assert list_samples("tiny_net:without_targets")["label"].to_pylist() == ["0", "1", "2"] * 2


def test_no_listing_can_name_code_to_run(tmp_path: pathlib.Path):
    """Neither a manifest nor a store: items are read of the one source that the user named."""
    with importable_factory(tmp_path, "def make():\n    open('ran', 'w').close()\n    return [b'x']\n"):
        (tmp_path / "m.csv").write_text("uri\nitem://0/python:tiny_net:make\n")
        [uri] = list_samples(str(tmp_path / "m.csv"))["uri"].to_pylist()
        for reader in (FsspecReader(), FsspecReader(code="python:tiny_net:other")):
            with pytest.raises(SampleError, match="refused, because to read it runs python:tiny_net:make"):
                reader.read(uri)
        assert not pathlib.Path("ran").exists()


@pytest.mark.parametrize("image", ["text", None, 7, np.zeros((2, 2, 7), np.uint8), np.zeros((4,), np.float32)])
def test_items_that_are_no_images(image: Any):
    with pytest.raises(SampleError, match=r"item 3 is .*, which is not an image"):
        png(image, 3)


def test_items_keep_their_pixels():
    import torch
    from PIL import Image

    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for image in (
        pixels,
        torch.from_numpy(pixels).permute(2, 0, 1),
        torch.from_numpy(pixels).permute(2, 0, 1) / 255,
        Image.fromarray(pixels),
    ):
        assert (data_sets.pixels_of(png(image, 0)) == pixels).all()
    with pytest.raises(SampleError, match="normalised already"):
        png(torch.randn(3, 4, 4) * 3, 0)


# URIs


def test_uris_of_bytes_in_files_keep_any_name():
    for file in ("/a/b#1!::zip://x.tar", "s3://bucket/a?b=c", "/plain"):
        assert parse_uri(range_uri(5, 7, file)).file == file
        assert parse_uri(mask_uri(3, 4, ((1, 2), (3, 4)), file)).ranges == ((1, 2), (3, 4))
        assert parse_uri(mask_uri(3, 4, ((1, 2),), file)).file == file
    assert [is_container_uri(f"{scheme}://x") for scheme in SCHEMES] == [True] * len(SCHEMES)
    assert not any(map(is_container_uri, ("/range://1+2/x", "s3://range://1", "file:///range://")))


@pytest.mark.parametrize(
    "uri",
    [
        "range://",
        "range://1/x",
        "range://a+b/x",
        "range://-1+5/x",
        "parquet://c/1/x",
        "arrow://c/1+2/x",
        "coco-mask://1x/1+2/x",
        "item://x/python:a:b",
    ],
)
def test_malformed_uris_are_error_rows(uri: str):
    with pytest.raises(SampleError, match="not a well-formed"):
        FsspecReader().read(uri)


def test_bytes_in_files_are_confined_too(tmp_path: pathlib.Path):
    secret = tmp_path / "secret.tar"
    secret.write_bytes(b"0123456789")
    root = tmp_path / "root"
    root.mkdir()
    (root / "in.tar").write_bytes(b"0123456789")
    (root / "link.tar").symlink_to(secret)
    confined = FsspecReader(check_data_root(str(root)))
    assert confined.read(range_uri(2, 3, f"{root}/in.tar")) == b"234"
    pq.write_table(pa.table({"image": [b"secret"]}), tmp_path / "s.parquet")
    cell = f"parquet://image/0+0/{tmp_path}/s.parquet"
    assert FsspecReader().read(cell) == b"secret", "and is open from now on"
    for uri in (range_uri(2, 3, str(secret)), range_uri(2, 3, f"{root}/link.tar"), range_uri(2, 3, f"{root}/../secret.tar"),
                range_uri(0, 3, f"memory://{tmp_path}"), mask_uri(2, 2, ((0, 3),), str(secret)), cell,
                f"arrow://image/0+0+0/{secret}"):  # fmt: skip
        with pytest.raises(SampleError, match="outside of the data root"):
            confined.read(uri)
    for uri in (range_uri(8, 5, f"{root}/in.tar"), range_uri(0, 3 << 30, f"{root}/in.tar")):
        with pytest.raises(SampleError, match=r"is shorter than|more than the limit"):
            confined.read(uri)


def test_a_place_that_cannot_be_reached_is_a_refusal():
    with pytest.raises(DataError, match="give a local path"):
        find_place("nosuch://x/y")
