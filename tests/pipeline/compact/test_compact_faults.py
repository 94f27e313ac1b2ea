"""`heatlas compact` killed, beside a retry, a late worker, another compaction; damaged files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from heatlas.errors import StorageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.explain.retry_errors import RetrySink
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.storage.location import is_local, locate
from heatlas.pipeline.store import compact as compact_module
from heatlas.pipeline.store import merge_parts as merged_file
from heatlas.pipeline.store.committed_shards import done_shards, read_part, row_totals
from heatlas.pipeline.store.compact import compact_store
from heatlas.pipeline.store.completeness import check_complete
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.parquet_bytes import tables_to_parquet
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.verify import verify_run

from ...support.compacted_store import SHARD, assert_whole, copied, everything, names


class KilledError(BaseException):
    """What no `except Exception` on the way holds back."""


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
