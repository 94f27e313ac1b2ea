"""`heatlas compact`: the same rows in fewer files, whatever happens in between and whoever reads or writes meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import heatlas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from heatlas.errors import StorageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.explain.retry_errors import RetrySink
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import describe
from heatlas.pipeline.shards import plan_digest, plan_shards
from heatlas.pipeline.storage.location import is_local, locate
from heatlas.pipeline.store import compact as compact_module
from heatlas.pipeline.store import merge_parts as merged_file
from heatlas.pipeline.store.committed_shards import done_shards, read_part, row_totals
from heatlas.pipeline.store.compact import blocks, compact_store
from heatlas.pipeline.store.completeness import check_complete
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.parquet_bytes import tables_to_parquet
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_files import DoneShards, PartFile, block_width, is_block, listed, part_file
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.status import run_status
from heatlas.pipeline.store.success_file import read_success, write_success
from heatlas.pipeline.store.verify import verify_run
from heatlas.workers.samples import Shard
from hypothesis import given
from hypothesis import strategies as st

ROWS, SHARD = 22, 2
SETTINGS = load_settings({"model": "torchvision:resnet18", "data": "photos", "out": "out"})


class KilledError(BaseException):
    """What no `except Exception` on the way holds back."""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(compact_module, "PAUSE", 0)


@pytest.fixture
def make_run(layout, make_row):
    """A run of 22 rows in 11 shards, three of them errors; some shards may be left out."""

    def write(out, leave_out=(), rows=ROWS):
        plan = plan_shards(rows, SHARD)
        facts = {"samples": rows, "shards": len(plan), "listing": "abc", "digest": plan_digest("abc", plan)}
        claim_run(str(out), {"plan": facts}, {**describe(SETTINGS), "out": str(out)})
        for shard in plan:
            if shard.index not in leave_out:
                ParquetSink(str(out), layout).commit(shard, [make_row(n) for n in range(shard.start, shard.stop)])
        if not leave_out:
            write_success(str(out), check_complete(str(out), plan))
        return plan

    return write


def names(out) -> list[str]:
    listing = done_shards(str(out))
    return [file.name for file in sorted([*listing.files, *listing.superseded])]


def everything(out) -> pa.Table:
    return heatlas.open(str(out)).table()


def assert_whole(out, digest: str) -> None:
    """Every row once, for readers and for the totals."""
    assert logical_digest(str(out)) == digest
    assert row_totals(str(out))["digest"] == digest
    check_complete(str(out), plan_shards(ROWS, SHARD))


# --- names and blocks


def test_a_merged_name_says_its_shards():
    assert PartFile(0, 63).path == "maps/parts-000000-000063.parquet"
    assert PartFile(64, 64, folder="metrics/abc").path == "metrics/abc/part-000064.parquet"
    assert part_file("parts-000064-000127.parquet", 9) == PartFile(64, 127, 9)
    assert "parts-000000-000063.parquet" > "part-999999.parquet"  # a listing in order shows parts first


@pytest.mark.parametrize("name", ["parts-000005-000002.parquet", "parts-000003-000003.parquet", "parts-000001-000002.parquet",
                                  "parts-0-1.parquet", "parts-000000-000001.parquet.tmp", ".parts-000000-000001.parquet"])  # fmt: skip
def test_names_that_compact_never_writes_are_none_of_the_store(name):
    assert part_file(name) is None


@given(plan=st.integers(1, 70), compactions=st.lists(st.tuples(st.integers(1, 7), st.sets(st.integers(0, 69))), max_size=6))  # fmt: skip
def test_blocks_are_nested_or_apart(plan, compactions):
    """Whatever widths are asked for in whatever order, and whichever merged files are lost, every shard has one file."""
    names = {PartFile(index, index).name for index in range(plan)}
    for power, dropped in compactions:
        width = 2**power
        for first in range(0, plan, width):
            block = PartFile(first, min(first + width, plan) - 1)
            if first not in dropped and block.last > block.first:
                names.add(block.name)
    listing = listed(dict.fromkeys(names, 7))
    assert list(listing) == list(range(plan))
    assert sum(listing.values()) == 7 * len(listing.files)
    assert {file.name for file in (*listing.files, *listing.superseded)} == names
    assert all(listing.file_of(index).covers(file) for file in listing.superseded for index in file.shards)


@given(st.integers(1, 10**6))
def test_block_width_is_the_next_power_of_two(count):
    width = block_width(count)
    assert width >= count > width // 2
    assert width & (width - 1) == 0
    assert is_block(3 * width, 3 * width + count - 1) == (count > 1)


def test_overlapping_files_are_refused():
    with pytest.raises(StorageError, match=r"parts-000000-000005.parquet and maps/parts-000004-000007.parquet overlap"):
        listed({"parts-000000-000005.parquet": 1, "parts-000004-000007.parquet": 1})


@given(shards=st.integers(1, 100), each=st.integers(1, 10**6), size=st.integers(1, 10**8), gone=st.integers(0, 99))
def test_blocks_fit_the_wanted_size_and_hold_all_their_shards(shards, each, size, gone):
    listing = DoneShards(PartFile(index, index, each) for index in range(shards) if index != gone)
    for files in blocks(listing, shards, size):
        assert 2 <= len(files) <= max(1, size // each)
        assert [file.first for file in files] == list(range(files[0].first, files[-1].last + 1))
        assert is_block(files[0].first, files[-1].last)


# --- merging


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


# --- killed at every storage call


LOCAL_CALLS = [(os, "link"), (os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "read_bytes")]
MEMORY_CALLS = [(MemoryFileSystem, name) for name in ("pipe_file", "rm_file", "cat_file", "_open", "ls")]


@contextlib.contextmanager
def killed_at(calls, number: int, after: bool):
    """The storage call of this number raises, before or after it has done its work; tells how many there were."""
    counted = {"calls": 0, "killed": False}
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in calls:
            real = getattr(owner, name)

            def planted(*arguments, real=real, **options):
                counted["calls"] += 1
                if counted["killed"] or counted["calls"] != number:
                    return real(*arguments, **options)
                counted["killed"] = True
                if after:
                    real(*arguments, **options)
                raise KilledError

            patch.setattr(owner, name, planted)
        yield counted


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_storage_call_every_row_is_there_once(place, make_run, after, monkeypatch):
    """The call that goes on from there is killed too, and the last one does the rest."""
    make_run(place, rows=14)
    digest, calls = logical_digest(place), LOCAL_CALLS if is_local(locate(place)[0]) else MEMORY_CALLS
    monkeypatch.setattr(compact_module, "MEGABYTE", max(done_shards(place).values()))
    copied(place, f"{place}-template")
    seen: set[tuple[str, ...]] = set()

    def survives_a_kill_at(number: int) -> bool:
        """Whether there is a storage call of that number."""
        with killed_at(calls, number, after) as counted, contextlib.suppress(KilledError):
            compact_store(place, size_mb=5)
        assert logical_digest(place) == digest
        assert row_totals(place)["digest"] == digest
        if tuple(names(place)) not in seen:
            seen.add(tuple(names(place)))
            assert sorted(everything(place)["id"].to_pylist()) == [f"img-{n:04d}" for n in range(14)]
            check_complete(place, plan_shards(14, SHARD))
        return counted["killed"]

    number = 1
    while survives_a_kill_at(number):
        survives_a_kill_at(number // 2 + 1)
        compact_store(place, size_mb=5)
        assert names(place) == ["parts-000000-000003.parquet", "parts-000004-000006.parquet"]
        copied(f"{place}-template", place)
        number += 1
    assert number > 20
    assert len(seen) >= 9  # two files put, seven parts removed
    assert verify_run(place).ok


def copied(source: str, target: str) -> None:
    """Make `target` what `source` is."""
    (fs, source), target = locate(source), locate(target)[1]
    if fs.exists(target):
        fs.rm(target, recursive=True)
    for path in fs.find(source):
        fs.makedirs(os.path.dirname(target + path.removeprefix(source)), exist_ok=True)
        fs.cp_file(path, target + path.removeprefix(source))


def test_a_killed_process_leaves_nothing_that_the_next_call_does_not_clear(tmp_path, make_run):
    """SIGKILL while the second merged file is half written, and while parts are being removed."""
    program = """
import os, signal, sys
from pathlib import Path
from heatlas.pipeline.store import compact
where, count = sys.argv[2], 0
owner, name = {"write": (os, "fsync"), "remove": (Path, "unlink")}[where]
real = getattr(owner, name)
def planted(*arguments, **options):
    global count
    count += 1
    if count == (3 if where == "write" else 6):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(owner, name, planted)
compact.PAUSE, compact.MEGABYTE = 0, int(sys.argv[3])
compact.compact_store(sys.argv[1], size_mb=5)
"""
    out = tmp_path / "out"
    make_run(out)
    digest, size = logical_digest(str(out)), max(done_shards(str(out)).values())
    for where in ("write", "remove"):
        done = subprocess.run([sys.executable, "-c", program, str(out), where, str(size)], timeout=120)
        assert done.returncode == -signal.SIGKILL
        assert_whole(out, digest)
    assert list((out / "maps").glob(".*.tmp"))
    compact_store(str(out))
    assert not list((out / "maps").glob(".*"))
    assert names(out) == ["parts-000000-000010.parquet"]
    assert verify_run(str(out)).ok
    assert_whole(out, digest)


# --- others at work meanwhile


def repaired(make_row, number: int):
    """The row of an image that was broken, mended."""
    return replace(make_row(number - 1), sample=make_row(number).sample)


def at(monkeypatch, module, name: str, action: Callable[[], object]) -> None:
    """Do something once, just before that function of a module is called."""
    real, done = getattr(module, name), []

    def planted(*arguments, **options):
        if not done:
            done.append(True)
            action()
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, planted)


@pytest.mark.parametrize("moment", ["after the parts were read", "after the merged file was put", "during the removal", "at the end"])  # fmt: skip
def test_a_retry_meanwhile_loses_nothing(tmp_path, make_run, layout, make_row, monkeypatch, moment):
    """Row 13 lies in shard 6."""
    out = str(tmp_path / "out")
    plan = make_run(out)
    sink = RetrySink(out, layout)

    def retry():
        assert sink.commit(plan[6], [repaired(make_row, 13)])

    where = {"after the parts were read": (merged_file, "put_if_absent"), "after the merged file was put": (compact_module.time, "sleep"),
             "during the removal": (compact_module, "delete_superseded"), "at the end": (compact_module, "renew_success")}  # fmt: skip
    at(monkeypatch, *where[moment], retry)
    result = compact_store(out)
    assert result.moved == (1 if moment == "after the parts were read" else 0)
    make_run(tmp_path / "other")
    assert RetrySink(str(tmp_path / "other"), layout).commit(plan[6], [repaired(make_row, 13)])
    assert names(out) == ["parts-000000-000010.parquet"]
    assert_whole(out, logical_digest(str(tmp_path / "other")))
    assert read_part(out, 6)["status"].to_pylist() == ["ok", "ok"]


def test_a_retry_that_looked_before_finds_its_shard_again(tmp_path, make_run, layout, make_row, monkeypatch):
    """It knows the part, and by the time it opens it the part is gone."""
    from heatlas.pipeline.store import rewrite_shard as shard_rows

    out = str(tmp_path)
    plan = make_run(out)
    at(monkeypatch, shard_rows, "exchange", lambda: compact_store(out))
    assert RetrySink(out, layout).commit(plan[6], [repaired(make_row, 13)])
    assert read_part(out, 6)["status"].to_pylist() == ["ok", "ok"]
    assert names(out) == ["parts-000000-000010.parquet"]


def test_a_retry_after_merging_gives_what_it_gives_before(tmp_path, place, make_run, layout, make_row):
    for out, merge in ((str(tmp_path / "apart"), False), (place, True)):
        plan = make_run(out)
        if merge:
            compact_store(out)
        for index, number in ((3, 6), (6, 13), (10, 20)):
            assert RetrySink(out, layout).commit(plan[index], [repaired(make_row, number)])
    assert logical_digest(place) == logical_digest(str(tmp_path / "apart"))
    assert {**row_totals(place), "bytes": 0} == {**row_totals(str(tmp_path / "apart")), "bytes": 0}
    assert names(place) == ["parts-000000-000010.parquet"]


def test_a_late_commit_changes_nothing_is_named_and_goes(tmp_path, make_run, layout, make_row, capsys):
    out = str(tmp_path)
    plan = make_run(out)
    digest = logical_digest(out)
    compact_store(out)
    late = replace(make_row(6), status="quarantined", error="a zombie of yesterday", map=None)
    assert ParquetSink(out, layout).commit(plan[3], [late, make_row(7)])
    assert_whole(out, digest)
    assert main(["verify", out]) == 1
    said = capsys.readouterr().out
    assert "maps/part-000003.parquet: is superseded: its shard is in a merged file" in said
    assert said.endswith(f"repair with\n  heatlas compact {out}\n")
    assert main(["compact", out]) == 0
    assert names(out) == ["parts-000000-000010.parquet"]
    assert verify_run(out).ok
    assert_whole(out, digest)


def test_a_left_over_file_that_is_damaged_stays_and_is_named(tmp_path, make_run, layout, make_row):
    out = str(tmp_path)
    make_run(out)
    compact_store(out)
    (tmp_path / part_path(3)).write_bytes(b"PAR1 not really")
    with pytest.raises(StorageError, match=r"part-000003.parquet, which a merged file supersedes: .*delete it"):
        compact_store(out)
    assert (tmp_path / part_path(3)).exists()
    assert done_shards(out).file_of(3).last == 10


def test_two_at_once_are_one(tmp_path, make_run, monkeypatch):
    out = str(tmp_path)
    make_run(out)
    digest = logical_digest(out)
    at(monkeypatch, merged_file, "put_if_absent", lambda: compact_store(out))
    compact_store(out)
    assert names(out) == ["parts-000000-000010.parquet"]
    assert_whole(out, digest)


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


# --- damage


def test_a_damaged_merged_file_is_named_and_its_shards_come_again(tmp_path, make_run, layout, make_row, capsys):
    out = str(tmp_path)
    plan = make_run(out)
    digest = logical_digest(out)
    compact_store(out)
    path = tmp_path / "maps/parts-000000-000010.parquet"
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(0)
    data[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    path.write_bytes(bytes(data))
    assert main(["verify", out, "--delete-damaged"]) == 1
    assert "parts-000000-000010.parquet: cannot be decoded" in capsys.readouterr().out
    assert not done_shards(out)
    for shard in plan:
        ParquetSink(out, layout).commit(shard, [make_row(n) for n in range(shard.start, shard.stop)])
    assert_whole(out, digest)


def test_other_rows_than_a_merged_file_says_are_named(tmp_path, make_run):
    make_run(tmp_path)
    compact_store(str(tmp_path))
    path = tmp_path / "maps/parts-000000-000010.parquet"
    table = pq.read_table(path)
    for change, said in (
        (lambda: table.slice(0, 21), "it has 21 rows, its footer speaks of 22"),
        (lambda: pa.concat_tables([table.slice(1, 1), table.slice(0, 1), table.slice(2)]).set_column(
            table.schema.names.index("confidence"), table.schema.field("confidence"), pa.array([0.5] * 22)
        ), "shard 0 holds other content than its digest says"),
        (lambda: table.replace_schema_metadata({**table.schema.metadata, b"heatlas_parts": b"[]"}), "does not say which rows"),
    ):  # fmt: skip
        path.write_bytes(tables_to_parquet([change()], change().schema))
        assert any(said in problem.text for problem in verify_run(str(tmp_path)).problems), said


def test_a_damaged_part_stops_the_merge_before_anything_is_changed(tmp_path, make_run):
    make_run(tmp_path)
    (tmp_path / part_path(4)).write_bytes(b"PAR1 not really")
    before = names(tmp_path)
    with pytest.raises(StorageError, match=r"part-000004.parquet: .*heatlas verify"):
        compact_store(str(tmp_path))
    assert names(tmp_path) == before


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


# --- what users type


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
