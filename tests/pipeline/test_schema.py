import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import SettingsError
from heatlas.pipeline.store.parquet_bytes import ROW_GROUP_BYTES, table_to_parquet
from heatlas.pipeline.store.rows_to_table import area_average, build_table
from heatlas.pipeline.store.schema import StoreLayout, metric_columns, read_metadata
from heatlas.workers.samples import Row, Sample
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

sides = st.integers(1, 40)


# --- map shape


@pytest.mark.parametrize(
    ("input_size", "map_size", "shape"),
    [
        ((224, 224), 56, (56, 56)),
        ((224, 224), "input", (224, 224)),
        ((32, 32), 56, (32, 32)),
        ((96, 192), 56, (28, 56)),
        ((300, 200), 56, (56, 37)),
        ((5, 1000), 56, (1, 56)),
        ((40, 80), 56, (28, 56)),
    ],
)
def test_map_shape_keeps_aspect_and_never_enlarges(input_size, map_size, shape):
    assert StoreLayout(input_size, map_size=map_size).map_shape == shape


@pytest.mark.parametrize("size", [0, -1, "full", 1.5])
def test_impossible_map_sizes_are_refused(size):
    with pytest.raises(SettingsError, match=r"store.map_size must be 'input' or at least 1 pixel, got .*leave it out"):
        StoreLayout((8, 8), map_size=size)


def test_a_metric_cannot_take_a_columns_name():
    with pytest.raises(SettingsError, match="the metric name 'confidence' is a column of every store"):
        StoreLayout((8, 8), metrics=("ebpg", "confidence"))


# --- area average


def test_area_average_by_hand():
    values = np.array([[0.0, 0.3, 0.9]])
    # each of two pixels covers one and a half old ones
    np.testing.assert_allclose(area_average(values, (1, 2)), [[(0 + 0.15) / 1.5, (0.15 + 0.9) / 1.5]], rtol=1e-12)


@given(st.tuples(sides, sides), st.data())
def test_area_average_equals_repeating_then_averaging_blocks(size, data):
    shape = tuple(data.draw(st.integers(1, side)) for side in size)
    values = np.random.default_rng(size[0] * 41 + size[1]).random(size)
    # the definition: each old pixel as shape x shape equal pieces, then whole blocks of pieces
    pieces = values.repeat(shape[0], axis=0).repeat(shape[1], axis=1)
    blocks = pieces.reshape(shape[0], size[0], shape[1], size[1])
    np.testing.assert_allclose(area_average(values, shape), blocks.mean(axis=(1, 3)), rtol=1e-9)


def test_area_average_keeps_constants_and_range():
    for size in range(1, 60):
        result = area_average(np.full((size, 60), 0.1, np.float32), (max(1, size // 3), 7))
        assert np.array_equal(result, np.full_like(result, np.float32(0.1)))


# --- rows


def read_back(table):
    return pq.read_table(io.BytesIO(table_to_parquet(table)))


def test_rows_come_back_from_parquet(layout, make_row):
    rows = [make_row(number) for number in (1, 6, 5)]
    table = read_back(build_table(rows, layout))
    assert table.schema.names == layout.schema().names
    first, bad, unmeasured = table.to_pylist()
    assert (first["id"], first["uri"], first["label"], first["target"], first["method"]) == (
        "img-0001", "/data/img-0001.png", 1, 1, "sise",
    )  # fmt: skip
    assert (first["height"], first["width"], first["mask_counts"], first["n_masks"], first["n_forwards"]) == (
        480, 640, [3, 1], 4, 4,
    )  # fmt: skip
    assert (first["drop_pct"], first["ebpg"], unmeasured["ebpg"]) == (1.0, 0.25, None)
    assert bad["status"] == "decode_error"
    assert bad["error"].startswith("cannot identify")
    assert [bad[name] for name in ("map", "map_png", "drop_pct", "ebpg", "confidence", "prediction")] == [None] * 6
    expected = area_average(rows[0].map, (6, 8)).astype(np.float16)
    assert np.array_equal(np.array(first["map"], np.float16).reshape(6, 8), expected)


def test_png_is_the_map_in_grey_at_input_resolution(layout, make_row):
    row = make_row(1)
    row.map[0, :2] = [0.0, 1.0]
    [stored] = build_table([row], layout)["map_png"].to_pylist()
    with Image.open(io.BytesIO(stored["bytes"])) as image:
        assert (image.mode, image.size, image.format) == ("L", (32, 24), "PNG")
        assert np.array_equal(np.asarray(image), np.rint(row.map * 255).astype(np.uint8))
        assert (image.getpixel((0, 0)), image.getpixel((1, 0))) == (0, 255)


def test_types_are_those_that_every_reader_opens(layout):
    schema = layout.schema()
    assert schema.field("map").type == pa.list_(pa.float16(), 48)
    assert schema.field("map_png").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert schema.field("ebpg").type == pa.float64()
    assert schema.field("label").type == pa.int32()


@pytest.mark.parametrize(("with_map", "with_png"), [(True, False), (False, True), (False, False)])
def test_map_columns_can_be_switched_off(make_row, with_map, with_png):
    small = StoreLayout((24, 32), with_map=with_map, with_png=with_png)
    table = build_table([make_row(1)], small)
    assert ("map" in table.column_names, "map_png" in table.column_names) == (with_map, with_png)
    assert ("map" in read_metadata(table.schema), b"huggingface" in table.schema.metadata) == (with_map, with_png)


def test_a_row_that_is_not_ok_has_no_map_and_no_metrics_but_keeps_its_prediction(layout):
    row = Row(Sample("a", "a"), "constant_map", "flat", 8, 8, prediction=2, target=2, confidence=0.5,
              map=np.zeros((24, 32), np.float32), metrics={"ebpg": 0.5})  # fmt: skip
    [stored] = build_table([row], layout).to_pylist()
    assert (stored["map"], stored["map_png"], stored["ebpg"]) == (None, None, None)
    assert (stored["prediction"], stored["confidence"]) == (2, 0.5)


def test_numbers_that_are_not_finite_are_null(layout, make_row):
    row = make_row(1)
    row.confidence, row.logit, row.metrics = (
        float("nan"),
        float("inf"),
        {"ebpg": float("nan"), "drop_pct": np.float32(2.0)},
    )
    [stored] = build_table([row], layout).to_pylist()
    assert (stored["confidence"], stored["logit"], stored["ebpg"], stored["drop_pct"]) == (None, None, None, 2.0)


def test_error_texts_that_are_not_unicode_are_stored(layout):
    table = build_table([Row(Sample("a", "a"), "read_error", "no file b\udcff.png")], layout)
    assert table["error"].to_pylist() == ["no file b?.png"]


def test_a_map_of_another_size_is_a_bug_and_says_so(layout, make_row):
    row = make_row(1)
    row.map = row.map.T
    with pytest.raises(ValueError, match=r"the map of 'img-0001' is \(32, 24\), the layout says \(24, 32\)"):
        build_table([row], layout)


# --- metadata and encoding


def test_metadata_survives_the_file(layout, make_row):
    facts = read_metadata(read_back(build_table([make_row(1)], layout)).schema)
    assert (facts["map"]["height"], facts["map"]["width"], facts["map"]["value_range"]) == (6, 8, [0.0, 1.0])
    assert (facts["map_png"]["height"], facts["map_png"]["width"]) == (24, 32)
    assert facts["metrics"]["ebpg"]["definition"] == "ebpg/v1"
    assert facts["class_names"] == ["ant", "bee", "cat"]
    assert facts["provenance"] == {"model": "sha256:abc"}
    assert (facts["method"], facts["schema_version"]) == ("sise", 3)


def test_huggingface_metadata_is_what_datasets_itself_writes(layout):
    datasets = pytest.importorskip("datasets")
    theirs = datasets.Features({"map_png": datasets.Image()}).arrow_schema.metadata[b"huggingface"]
    assert json.loads(layout.schema().metadata[b"huggingface"]) == json.loads(theirs)


def test_maps_are_plain_zstd_without_dictionary(layout, make_row):
    data = table_to_parquet(build_table([make_row(number) for number in range(20)], layout))
    group = pq.read_metadata(io.BytesIO(data)).row_group(0)
    columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    maps = columns["map.list.element"]
    assert set(maps.encodings) == {"PLAIN", "RLE"}
    assert not maps.has_dictionary_page
    assert columns["status"].has_dictionary_page


def test_row_groups_hold_a_few_megabytes():
    large = StoreLayout((256, 256), map_size="input", with_png=False)
    rows = [Row(Sample(str(number), ""), "ok", map=np.zeros((256, 256), np.float32)) for number in range(80)]
    table = build_table(rows, large)
    file = pq.ParquetFile(io.BytesIO(table_to_parquet(table)))
    assert file.num_row_groups == 3
    assert file.metadata.row_group(0).num_rows * table.nbytes / 80 <= ROW_GROUP_BYTES


def test_metric_columns_are_the_rest(layout):
    assert metric_columns(layout.schema()) == ["drop_pct", "ebpg"]


def test_no_rows_make_an_empty_file(layout):
    assert len(read_back(build_table([], layout))) == 0
