"""Data sets in Python and bytes in files: what fails is refused, no listing names code to run, URIs stay confined."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import DataError, SampleError
from heatlas.pipeline.sources.listing.place import find_place
from heatlas.pipeline.sources.reading.confinement import check_data_root
from heatlas.pipeline.sources.reading.container_uri import SCHEMES, is_container_uri, mask_uri, parse_uri, range_uri
from heatlas.pipeline.sources.reading.items import png
from heatlas.pipeline.sources.reading.reader import FsspecReader

from ..support import data_sets
from ..support.listings import list_samples, refusal
from ..support.tiny_run import importable_factory


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
