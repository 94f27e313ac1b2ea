"""Tars: never unpacked, no names that are paths, damage is refused or an error row."""

from __future__ import annotations

import os
import pathlib
import tarfile

import pytest
from heatlas.errors import SampleError
from heatlas.pipeline.shards import EXTRA
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.options import SourceOptions
from heatlas.pipeline.sources.reading.reader import FsspecReader

from ..support import data_sets
from ..support.listings import list_samples, refusal


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
