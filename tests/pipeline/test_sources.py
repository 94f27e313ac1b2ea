"""Listing folders and manifests, and reading what they list."""

from __future__ import annotations

import json
import os
import pickle
import uuid
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import DataError, SampleError
from heatlas.pipeline.sources.listing.table import LISTING
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.statuses import READ_ERROR

from ..support.checkout import SHARED_DATA as SHARED
from ..support.listings import list_samples


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def refusal(data: object, columns: dict[str, str] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        list_samples(str(data), columns)
    return str(caught.value)


@pytest.fixture
def memory() -> str:
    return f"memory://{uuid.uuid4().hex}"


# folders


def test_folder(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/2.JPG",
        "b/deep/1.png",
        "a/x.webp",
        "root.tif",
        "a/notes.txt",
        ".hidden.jpg",
        ".git/y.jpg",
        "a/.z.jpg",
        "c/empty.md",
    )
    listing = list_samples(str(tmp_path))
    assert listing.schema == LISTING
    assert listing["id"].to_pylist() == ["a/x.webp", "b/2.JPG", "b/deep/1.png", "root.tif"]
    assert listing["label"].to_pylist() == ["a", "b", "b", None]
    assert listing["uri"].to_pylist() == [f"{tmp_path}/{name}" for name in listing["id"].to_pylist()]
    assert listing["boxes"].null_count == listing["mask_uri"].null_count == 4
    assert FsspecReader().read(listing["uri"][2].as_py()) == b"b/deep/1.png"


def test_folder_is_the_same_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/a/1.png", "data/b/2.png")
    expected = list_samples(str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for way in ("data", "data/", "./data", f"file://{tmp_path}/data"):
        assert list_samples(way).equals(expected), way


def test_folder_in_object_storage(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    for name in ("b/2.jpg", "a/1.png", ".hidden/3.png", "4.png", "a/readme.md"):
        fs.pipe(f"{memory}/{name}", name.encode())
    listing = list_samples(memory)
    assert listing["id"].to_pylist() == ["4.png", "a/1.png", "b/2.jpg"]
    assert listing["label"].to_pylist() == [None, "a", "b"]
    reader = pickle.loads(pickle.dumps(FsspecReader()))
    assert [reader.read(uri) for uri in listing["uri"].to_pylist()] == [b"4.png", b"a/1.png", b"b/2.jpg"]


def test_folder_with_links(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.png", "data/a/2.png")
    data = tmp_path / "data"
    (data / "b").symlink_to(tmp_path / "elsewhere")
    (data / "a" / "loop").symlink_to(data)
    (data / "a" / "self.png").symlink_to(data / "a" / "self.png")
    (data / "a" / "gone.png").symlink_to(tmp_path / "nothing")
    listing = list_samples(str(data))
    assert listing["id"].to_pylist() == ["a/2.png", "a/gone.png", "a/self.png", "b/1.png"]
    for row, reason in ((1, "no such file"), (2, "too many levels of symbolic links")):
        with pytest.raises(SampleError, match=reason) as caught:
            FsspecReader().read(listing["uri"][row].as_py())
        assert caught.value.status == READ_ERROR


def test_odd_names(tmp_path: Path) -> None:
    touch(tmp_path, "a/new\nline.png", "a/b::c.png", "a/50%20#?.png", "a/ünï.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.png")).write_bytes(b"x")
    listing = list_samples(str(tmp_path))
    assert sorted(listing["id"].to_pylist()) == sorted(
        ["a/new\nline.png", "a/b::c.png", "a/50%20#?.png", "a/ünï.png", "a/\\xff.png"]
    )
    for row in listing.to_pylist():
        if row["id"] == "a/\\xff.png":
            with pytest.raises(SampleError, match="no such file"):
                FsspecReader().read(row["uri"])
        else:
            assert FsspecReader().read(row["uri"]) == row["id"].encode()


def test_a_folder_named_like_an_image(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg/1.png")
    assert list_samples(str(tmp_path))["label"].to_pylist() == ["x.jpg"]
    with pytest.raises(SampleError, match="is a directory"):
        FsspecReader().read(str(tmp_path / "x.jpg"))
    with pytest.raises(SampleError) as caught:
        FsspecReader().read(f"file://{tmp_path}/x.jpg")
    assert caught.value.status == READ_ERROR


def test_folder_refusals(tmp_path: Path, memory: str) -> None:
    touch(tmp_path, "data/readme.md", "photo.txt")
    assert refusal(tmp_path / "data").startswith(
        f"{tmp_path}/data contains no images; files count as images with .avif"
    )
    assert (
        refusal(tmp_path / "gone")
        == f"there is no file or folder {tmp_path}/gone; give an image folder, a manifest, or another source of docs/data.md"
    )
    assert "is neither a folder nor a manifest: a manifest ends in .csv, .tsv, .jsonl" in refusal(
        tmp_path / "photo.txt"
    )
    assert "there is no file or folder" in refusal(memory)
    assert "give a local path" in refusal("nosuch://x/y")


# manifests

ROWS = [
    {"id": "2", "uri": "b.png", "label": "dog", "boxes": [[0, 1, 2.5, 3], [4, 4, 5, 5]], "mask": "m/b.png"},
    {"id": "1", "uri": "./a.png", "label": None, "boxes": None, "mask": None},
    {"id": "3", "uri": "/abs/c.png", "label": "007", "boxes": [], "mask": "s3://bucket/c.png"},
]


def write(path: Path, rows: list[dict]) -> Path:
    names = list(rows[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        cells = [[cell(row[name]) for name in names] for row in rows]
        path.write_text("\ufeff" + "\n".join(separator.join(line) for line in [names, *cells]) + "\n")
    return path


def cell(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "ndjson", "parquet", "CSV"])
def test_manifest(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"m.{suffix.lower()}", [{**row, "other": n} for n, row in enumerate(ROWS)])
    path = path.rename(tmp_path / f"n.{suffix}")
    listing = list_samples(str(path))
    assert listing.schema == LISTING
    assert listing["id"].to_pylist() == ["1", "2", "3"]
    assert listing["uri"].to_pylist() == [f"{tmp_path}/a.png", f"{tmp_path}/b.png", "/abs/c.png"]
    assert listing["label"].to_pylist() == [None, "dog", "007"]
    assert listing["boxes"].to_pylist() == [None, [[0, 1, 2.5, 3], [4, 4, 5, 5]], []]
    assert listing["mask_uri"].to_pylist() == [None, f"{tmp_path}/m/b.png", "s3://bucket/c.png"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_are_mapped_and_ids_default_to_uris(tmp_path: Path, suffix: str) -> None:
    rows = [{"file": f"{name}.png", "class": n, "uri": "not this"} for n, name in enumerate("ba")]
    listing = list_samples(str(write(tmp_path / f"m.{suffix}", rows)), {"uri": "file", "label": "class"})
    assert listing["id"].to_pylist() == ["a.png", "b.png"]
    assert listing["label"].to_pylist() == ["1", "0"]


def test_only_uri_is_needed(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri\nx.png\n")
    assert list_samples(str(tmp_path / "m.csv")).to_pylist() == [
        {"id": "x.png", "uri": f"{tmp_path}/x.png", "label": None, "boxes": None, "mask_uri": None}
    ]


def test_manifest_in_object_storage(memory: str) -> None:
    fsspec.filesystem("memory").pipe(f"{memory}/set/m.csv", b"uri,mask\nimg/x.png,x_mask.png\n")
    fsspec.filesystem("memory").pipe(f"{memory}/set/img/x.png", b"bytes")
    row = list_samples(f"{memory}/set/m.csv").to_pylist()[0]
    assert row["uri"].endswith("/set/img/x.png")
    assert row["mask_uri"].startswith("memory://")
    assert FsspecReader().read(row["uri"]) == b"bytes"


def test_labels_of_parquet_that_pandas_wrote(tmp_path: Path) -> None:
    table = pa.table(
        {"uri": ["a", "b"], "label": pa.array([3.0, None]), "boxes": ["[[1, 2, 3, 4]]", None]},
    )
    pq.write_table(table, tmp_path / "m.parquet")
    listing = list_samples(str(tmp_path / "m.parquet"))
    assert listing["label"].to_pylist() == ["3", None]
    assert listing["boxes"].to_pylist() == [[[1, 2, 3, 4]], None]
    pq.write_table(table.set_column(1, "label", pa.array(["x", "y"]).dictionary_encode()), tmp_path / "m.parquet")
    assert list_samples(str(tmp_path / "m.parquet"))["label"].to_pylist() == ["x", "y"]


def test_mixed_json_labels_are_text(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "a", "label": 3}\n{"uri": "b", "label": "cat"}\n{"uri": "c"}\n')
    assert list_samples(str(tmp_path / "m.jsonl"))["label"].to_pylist() == ["3", "cat", None]


def test_quoted_text_of_a_csv_survives(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('uri,label\n"a,b.png","line\nbreak"\nNA,null\n')
    listing = list_samples(str(tmp_path / "m.csv"))
    assert listing["id"].to_pylist() == ["NA", "a,b.png"]
    assert listing["label"].to_pylist() == ["null", "line\nbreak"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_duplicate_ids_name_both(tmp_path: Path, suffix: str) -> None:
    rows = [{"id": name, "uri": f"{n}.png"} for n, name in enumerate("abca")]
    text = refusal(write(tmp_path / f"m.{suffix}", rows))
    assert "'a'" in text
    assert f"{tmp_path}/0.png" in text
    assert f"{tmp_path}/3.png" in text


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_missing_columns_are_named_with_those_present(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"m.{suffix}", [{"url": "a.png", "class": "x"}])
    text = refusal(path)
    assert text.startswith(f"{path} has no column 'uri' for 'uri'; did you mean 'url'?; it has 'url', 'class'.")
    assert "columns={'uri': NAME}" in text
    assert "has no column 'klass' for 'label'; did you mean 'class'?" in refusal(path, {"uri": "url", "label": "klass"})
    assert "unknown column 'lable' in the mapping" in refusal(path, {"lable": "class"})


BAD_BOXES = ["nonsense", [1, 2, 3, 4], [[1, 2, 3]], [[1, 2, 3, None]], {"x": 1}, [["a", 1, 2, 3]]]


@pytest.mark.parametrize("boxes", BAD_BOXES, ids=str)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_bad_boxes_are_named_with_their_row(tmp_path: Path, suffix: str, boxes: object) -> None:
    good = {"uri": "a", "boxes": [[0, 0, 1, 1]]}
    path = write(
        tmp_path / f"m.{suffix}",
        [good, {"uri": "b", "boxes": None}, {"uri": "c", "boxes": boxes}, {**good, "uri": "d"}],
    )
    text = refusal(path)
    assert f"the boxes in row 3 of {path} must be lists [[x0, y0, x1, y1], ...] in pixels, they are" in text


def test_bad_boxes_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"uri": ["a", "b", "c"], "boxes": [None, [[0, 0, 1, 1]], [[0, 0, 1, 1], [1, 2]]]}), path)
    assert f"the boxes in row 3 of {path}" in refusal(path)
    pq.write_table(pa.table({"uri": ["a"], "boxes": [3]}), path)
    assert "column 'boxes' of" in refusal(path)


def test_many_chunks_of_boxes(tmp_path: Path) -> None:
    boxes: list = [[[0, 0, 1, 1]]] * 40
    boxes[33] = [[0, 0, 1]]
    pq.write_table(
        pa.table({"uri": [str(n) for n in range(40)], "boxes": boxes}), tmp_path / "m.parquet", row_group_size=7
    )
    assert "row 34" in refusal(tmp_path / "m.parquet")


def test_manifest_refusals(tmp_path: Path) -> None:
    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    assert "row 2 of" in refusal(file("a.csv", b"uri,label\nx,1\n,2\n"))
    assert "has no id; every sample needs one" in refusal(file("a.csv", b"uri,id\nx,1\ny,\n"))
    assert "lists no samples" in refusal(file("a.csv", b"uri,label\n"))
    assert "has no column 'uri'" in refusal(file("a.csv", b""))
    assert "as CSV" in refusal(file("a.csv", b"uri,label\nx,1\ny,2,3\n"))
    assert "has zero bytes at its beginning" in refusal(file("a.csv", "uri,label\nx,1\n".encode("utf-16-le")))
    assert "row 2 of" in refusal(file("a.jsonl", b'{"uri": "x"}\n{"uri": \n'))
    assert "must be a JSON object, it is '[1, 2]'" in refusal(file("a.jsonl", b"[1, 2]\n"))
    assert "'uri' in row 2" in refusal(file("a.jsonl", b'{"uri": "x"}\n{"uri": "caf\\udce9.jpg"}\n'))
    assert "'label' in row 1" in refusal(file("a.jsonl", b'{"uri": "x", "label": [1]}\n'))
    assert "as Parquet" in refusal(file("a.parquet", b"no parquet"))


# reading


def test_reader_tells_why(tmp_path: Path, memory: str) -> None:
    reader = FsspecReader()
    for uri, reason in (
        (f"{tmp_path}/gone.png", "no such file"),
        (f"{memory}/gone.png", "no such file"),
        ("nosuch://x/y.png", "Protocol not known"),
    ):
        with pytest.raises(SampleError, match=reason) as caught:
            reader.read(uri)
        assert caught.value.status == READ_ERROR
        assert uri in caught.value.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_reader_without_permission(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(SampleError, match="permission denied"):
        FsspecReader().read(str(tmp_path / "a.png"))


@pytest.mark.outside_files("shared/data/imagenet_boxes", "shared/data/magnetic_tile")
def test_real_manifest_with_boxes() -> None:
    listing = list_samples(f"{SHARED}/imagenet_boxes/labels.csv", {"uri": "file", "boxes": "boxes_xyxy"})
    assert len(listing) == 300
    assert listing["boxes"].null_count == 0
    assert FsspecReader().read(listing["uri"][0].as_py())[:2] == b"\xff\xd8"
    tiles = list_samples(f"{SHARED}/magnetic_tile/labels.csv", {"uri": "file"})
    assert tiles["mask_uri"].null_count == 0
    assert len(FsspecReader().read(tiles["mask_uri"][0].as_py())) > 0
