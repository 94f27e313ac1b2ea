"""`heatlas compact`: the same rows in fewer files."""

from __future__ import annotations

import json
from dataclasses import replace

import heatlas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import StorageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store import compact as compact_module
from heatlas.pipeline.store import merge_parts as merged_file
from heatlas.pipeline.store.committed_shards import done_shards, read_part, row_totals
from heatlas.pipeline.store.compact import compact_store
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.parquet_bytes import tables_to_parquet
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.status import run_status
from heatlas.pipeline.store.success_file import read_success
from heatlas.pipeline.store.verify import verify_run
from heatlas.workers.samples import Shard

from ...support.compacted_store import ROWS, assert_whole, copied, everything, names


def test_the_same_rows_in_fewer_files(place, make_run, capsys):
    make_run(place)
    before, table, status, maps = row_totals(place), everything(place), run_status(place), heatlas.open(place).maps()
    assert main(["compact", place]) == 0
    said = capsys.readouterr()
    assert said.out == f"{place}: 11 files before, 1 now (1 merged file written)\n"
    assert said.err == "maps/parts-000000-000010.parquet: 11 files in one\n"
    assert names(place) == ["parts-000000-000010.parquet"]
    assert everything(place).equals(table)
    assert (heatlas.open(place).maps() == maps).all()
    assert {**row_totals(place), "bytes": 0} == {**before, "bytes": 0}
    assert replace(run_status(place), bytes=0) == replace(status, bytes=0)
    assert read_success(place) == row_totals(place)
    assert verify_run(place).ok
    assert_whole(place, before["digest"])
    assert read_part(place, 7).equals(table.slice(14, 2))


def test_the_same_call_again_does_nothing(tmp_path, make_run, capsys):
    make_run(tmp_path)
    compact_store(str(tmp_path))
    file = tmp_path / "maps/parts-000000-000010.parquet"
    stamp = file.stat().st_mtime_ns, file.stat().st_ino
    assert main(["compact", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "out": str(tmp_path), "files_before": 1, "files_after": 1, "merged": [], "removed": 0, "moved": 0,
    }  # fmt: skip
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == stamp


def test_merged_files_have_a_page_index_and_groups_of_a_few_mb(tmp_path, make_run):
    make_run(tmp_path)
    compact_store(str(tmp_path))
    opened = pq.ParquetFile(tmp_path / "maps/parts-000000-000010.parquet")
    assert opened.num_row_groups == 1
    assert opened.metadata.row_group(0).column(0).has_offset_index
    assert opened.metadata.row_group(0).column(0).has_column_index


def test_tables_behind_each_other_fill_row_groups(tmp_path):
    table = pa.table({"a": pa.array(range(200_000), pa.int64())})
    whole = tables_to_parquet([table.slice(start, 1000) for start in range(0, 200_000, 1000)], table.schema)
    (tmp_path / "a").write_bytes(whole)
    opened = pq.ParquetFile(tmp_path / "a")
    assert opened.num_row_groups == 1
    many = pa.concat_tables([table] * 10)
    (tmp_path / "b").write_bytes(tables_to_parquet([many.slice(start, 70_000) for start in range(0, len(many), 70_000)], table.schema))  # fmt: skip
    opened = pq.ParquetFile(tmp_path / "b")
    assert 3 <= opened.num_row_groups <= 5
    assert opened.read().equals(many)


def test_wider_files_take_the_place_of_narrower_ones(tmp_path, make_run, monkeypatch):
    make_run(tmp_path)
    digest = logical_digest(str(tmp_path))
    size = max(done_shards(str(tmp_path)).values())
    monkeypatch.setattr(compact_module, "MEGABYTE", size)
    compact_store(str(tmp_path), size_mb=3)
    assert names(tmp_path) == [*(f"parts-{n:06d}-{n + 1:06d}.parquet" for n in range(0, 10, 2)), "part-000010.parquet"]
    compact_store(str(tmp_path), size_mb=40)
    assert names(tmp_path) == ["parts-000000-000010.parquet"]
    compact_store(str(tmp_path), size_mb=2)
    assert names(tmp_path) == ["parts-000000-000010.parquet"]
    assert_whole(tmp_path, digest)


def test_an_unfinished_run_is_merged_where_blocks_are_whole_and_goes_on(tmp_path, make_run, layout, make_row, monkeypatch):  # fmt: skip
    plan = make_run(tmp_path / "whole")
    make_run(tmp_path / "out", leave_out=(5,))
    out = str(tmp_path / "out")
    monkeypatch.setattr(compact_module, "MEGABYTE", max(done_shards(out).values()))
    compact_store(out, size_mb=5)
    assert names(out) == ["parts-000000-000003.parquet", "part-000004.parquet", "part-000006.parquet",
                          "part-000007.parquet", "parts-000008-000010.parquet"]  # fmt: skip
    assert read_success(out) is None
    assert [shard.index for shard in plan if shard.index not in done_shards(out)] == [5]
    ParquetSink(out, layout).commit(plan[5], [make_row(n) for n in (10, 11)])
    assert_whole(out, logical_digest(str(tmp_path / "whole")))


def test_an_atlas_opened_before_goes_on(place, make_run):
    make_run(place)
    atlas, calm = heatlas.open(place), everything(place)
    ids = ["img-0012", "img-0000", "img-0012"]
    maps, scores = atlas.maps(ids), atlas.table(["confidence"], where="status = 'ok'")["confidence"].to_pylist()
    copied(place, f"{place}-before")
    compact_store(place)
    assert atlas.table().equals(calm)
    for ask in (
        lambda entry: (
            entry.table(["id"], where="status <> 'ok'")["id"].to_pylist() == ["img-0006", "img-0013", "img-0020"]
        ),
        lambda entry: entry.statuses() == {"ok": 19, "decode_error": 3},
        lambda entry: (entry.maps(ids) == maps).all(),
        lambda entry: entry.sql("SELECT count(*) FROM atlas").fetchall() == [(22,)],
        lambda entry: [len(piece) for piece in entry.batches(["id"])] == [22],
        lambda entry: (
            pa.concat_tables(entry.batches(["confidence"], where="status = 'ok'"))["confidence"].to_pylist() == scores
        ),
    ):
        copied(f"{place}-before", place)
        fresh = heatlas.open(place)
        compact_store(place)
        assert ask(fresh)


def test_a_shard_that_is_gone_is_still_an_error(tmp_path, make_run):
    make_run(tmp_path)
    atlas = heatlas.open(tmp_path)
    (tmp_path / part_path(3)).unlink()
    with pytest.raises(StorageError, match=r"part-000003.parquet"):
        atlas.table()


def test_pieces_go_on_where_they_were_when_the_files_went_away(place, make_run):
    make_run(place)
    pieces = heatlas.open(place).batches(["id"])
    ids = next(pieces)["id"].to_pylist() + next(pieces)["id"].to_pylist()
    compact_store(place)
    ids += [row for piece in pieces for row in piece["id"].to_pylist()]
    assert ids == [f"img-{n:04d}" for n in range(ROWS)]


def test_parts_of_different_origin_are_not_mixed(tmp_path, make_run, layout, make_row):
    make_run(tmp_path, leave_out=(4,))
    other = replace(layout, metadata={**layout.metadata, "provenance": {"model": "sha256:xyz"}})
    ParquetSink(str(tmp_path), other).commit(Shard(4, 8, 10), [make_row(8), make_row(9)])
    with pytest.raises(StorageError, match=r"part-000004.parquet has other columns or another origin"):
        compact_store(str(tmp_path))


def test_nan_is_like_nan_and_null_is_not_like_zero():
    values = pa.table({"a": pa.array([1.0, float("nan"), None, 0.0])})
    assert merged_file.same(values, values.take(pa.array([0, 1, 2, 3])))
    assert not merged_file.same(values, values.take(pa.array([0, 1, 3, 2])))
    assert not merged_file.same(values, values.take(pa.array([0, 3, 2, 1])))
    assert not merged_file.same(values, values.rename_columns(["b"]))


def test_what_is_written_is_compared_with_what_was_there(tmp_path, make_run, monkeypatch):
    make_run(tmp_path)
    real = merged_file.merged_bytes

    def wrong(tables, summaries):
        changed = dict(tables)
        changed[2], changed[3] = tables[3], tables[2]
        return real(changed, summaries)

    monkeypatch.setattr(merged_file, "merged_bytes", wrong)
    before = names(tmp_path)
    with pytest.raises(StorageError, match=r"shard 2 of .* does not read as it was written"):
        compact_store(str(tmp_path))
    assert names(tmp_path) == before


@pytest.mark.parametrize(("arguments", "said"), [
    (["--size", "0"], "must be 1 to 4096 MB, got 0"),
    (["--size", "5000"], "must be 1 to 4096 MB, got 5000"),
    (["--size", "big"], "--size"),
    (["--sise", "3"], "--sise"),
])  # fmt: skip
def test_bad_options(tmp_path, make_run, capsys, arguments, said):
    make_run(tmp_path)
    before = names(tmp_path)
    assert main(["compact", str(tmp_path), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert names(tmp_path) == before


def test_no_run(tmp_path, capsys):
    assert main(["compact", str(tmp_path)]) == 2
    assert "is not a heatlas store" in capsys.readouterr().err
