"""The files are plain Parquet: everybody opens them without heatlas."""

import numpy as np
import pytest
from heatlas.pipeline.store.rows_to_table import area_average


@pytest.fixture
def parts(tmp_path, make_store):
    make_store(tmp_path / "out")
    return str(tmp_path / "out" / "maps" / "part-*.parquet")


@pytest.fixture
def small_map(make_row):
    return area_average(make_row(1).map, (6, 8)).astype(np.float16)


def test_pandas(parts, small_map):
    import pandas as pd

    frame = pd.read_parquet(parts.rsplit("/", 1)[0]).set_index("id")
    assert len(frame) == 20
    assert np.array_equal(np.asarray(frame.loc["img-0001", "map"]).reshape(6, 8), small_map)
    assert frame.loc["img-0006", "map"] is None
    assert frame["drop_pct"].mean() == pytest.approx(sum(number for number in range(20) if number % 7 != 6) / 18)
    assert frame.loc["img-0001", "map_png"]["bytes"].startswith(b"\x89PNG")


def test_polars(parts, small_map):
    import polars as pl

    frame = pl.read_parquet(parts)
    assert frame["map"].dtype == pl.Array(pl.Float16, 48)
    row = frame.filter(pl.col("id") == "img-0001")
    assert np.array_equal(np.asarray(row["map"][0].to_list(), np.float16).reshape(6, 8), small_map)
    assert frame.filter(pl.col("map").is_null())["id"].to_list() == ["img-0006", "img-0013"]
    lazy = pl.scan_parquet(parts).filter(pl.col("status") == "ok").select(pl.col("drop_pct").sum())
    assert lazy.collect().item() == sum(number for number in range(20) if number % 7 != 6)


def test_duckdb_with_arithmetic(parts, small_map):
    import duckdb

    rows = duckdb.sql(
        "SELECT id, map[10], list_sum(map), list_sum(list_transform(map, lambda v: v * v)) "
        f"FROM '{parts}' WHERE id IN ('img-0001', 'img-0006') ORDER BY id"
    ).fetchall()
    wide = small_map.astype(np.float64).ravel()
    assert rows[0][1:] == pytest.approx((wide[9], wide.sum(), (wide**2).sum()), rel=1e-5)
    assert rows[1] == ("img-0006", None, None, None)
    [(product,)] = duckdb.sql(f"SELECT list_dot_product(map, map) FROM '{parts}' WHERE id = 'img-0001'").fetchall()
    assert product == pytest.approx((wide**2).sum(), rel=1e-5)


def test_huggingface_datasets_decodes_the_png(parts, small_map, make_row, tmp_path):
    datasets = pytest.importorskip("datasets")
    stored = datasets.load_dataset("parquet", data_files=parts, split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(stored.features["map_png"], datasets.Image)
    assert len(stored) == 20
    row = stored[1]
    assert (row["id"], row["map_png"].mode, row["map_png"].size) == ("img-0001", "L", (32, 24))
    assert np.array_equal(np.asarray(row["map_png"]), np.rint(make_row(1).map * 255).astype(np.uint8))
    assert np.array_equal(np.asarray(row["map"], np.float16).reshape(6, 8), small_map)
    assert (stored[6]["map"], stored[6]["map_png"], stored[6]["status"]) == (None, None, "decode_error")
