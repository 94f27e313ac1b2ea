"""Parquet files that unpack to far more than they hold are refused before they are unpacked."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import DataError, SampleError
from heatlas.pipeline.sources.listing.manifest_files import read_parquet
from heatlas.pipeline.sources.reading import parquet_bounds
from heatlas.pipeline.sources.reading.cells import ParquetColumn
from heatlas.pipeline.sources.reading.container_uri import ContainerUri

MAPPING = {"id": "id", "uri": "uri", "label": "label"}


def written(table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue().to_pybytes()


def test_one_long_text_repeated_is_refused():
    """A file of kilobytes whose texts would take 3 GB."""
    table = pa.table({
        "id": [str(number) for number in range(3000)],
        "uri": pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 1_000_000])),
    })  # fmt: skip
    data = written(table, store_schema=False)
    assert len(data) < 100_000
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"its texts would take 3,000,\d{3},\d{3} bytes in 3,000 rows"):
        read_parquet(data, MAPPING, "m.parquet")
    assert pa.total_allocated_bytes() - before < 50_000_000


def test_more_rows_than_ids_can_be_told_apart_are_refused():
    table = pa.table({"id": pa.array(["x"] * 2_000_000), "uri": pa.array(["y"] * 2_000_000)})
    with pytest.raises(DataError, match=r"2,000,000 rows in .* are more than a listing with unique ids can have"):
        read_parquet(written(table), MAPPING, "m.parquet")


def test_texts_that_unpack_beyond_any_data_set_are_refused(monkeypatch):
    monkeypatch.setattr(parquet_bounds, "ALWAYS_BYTES", 1_000_000)
    table = pa.table({"id": [str(n) for n in range(40)], "uri": ["z" * 100_000 + str(n) for n in range(40)]})
    with pytest.raises(DataError, match=r"that unpack to 4,\d{3},\d{3} are more than 100 times"):
        read_parquet(written(table, use_dictionary=False), MAPPING, "m.parquet")


def test_ordinary_listings_are_read_as_before():
    names = [f"image-{number:06d}.png" for number in range(5000)]
    table = pa.table({"id": names, "uri": names, "label": pa.array([n % 7 for n in range(5000)]),
                      "site": pa.array(["a", "b"] * 2500).dictionary_encode()})  # fmt: skip
    columns, own, _ = read_parquet(written(table), MAPPING, "m.parquet", others=True)
    assert columns["id"].to_pylist() == names
    assert columns["id"].type == pa.string()
    assert own["site"].to_pylist() == ["a", "b"] * 2500


def test_a_repeated_image_is_unpacked_row_by_row(tmp_path):
    image = os.urandom(1000) * 8000
    table = pa.table(
        {"image": pa.DictionaryArray.from_arrays(pa.array([0] * 32, pa.int32()), pa.array([image], pa.binary()))}
    )
    path = tmp_path / "images.parquet"
    path.write_bytes(written(table, store_schema=False, dictionary_pagesize_limit=2**30))
    with open(path, "rb") as stream:
        column = ParquetColumn(stream, "image")
        before = pa.total_allocated_bytes()
        assert column.value(ContainerUri("parquet", str(path), "image", row=31)) == image
        assert pa.total_allocated_bytes() - before < 8 * len(image)
        column.close()


def test_an_image_that_unpacks_beyond_any_image_is_an_error_of_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_bounds, "ALWAYS_BYTES", 1_000_000)
    path = tmp_path / "images.parquet"
    path.write_bytes(written(pa.table({"image": pa.array([bytes(5_000_000)], pa.binary())}), use_dictionary=False))
    with open(path, "rb") as stream:
        column = ParquetColumn(stream, "image")
        with pytest.raises(SampleError, match="more than 100 times"):
            column.value(ContainerUri("parquet", str(path), "image"))
        column.close()
