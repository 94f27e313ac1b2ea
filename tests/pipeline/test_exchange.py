"""Changing a stored file in one step, and merging recomputed rows into it."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from heatlas.errors import StorageError
from heatlas.pipeline.explain.retry_errors import RetrySink
from heatlas.pipeline.storage import backoff as retries
from heatlas.pipeline.storage.atomic_write import put, put_if_absent
from heatlas.pipeline.storage.compare_and_swap import exchange
from heatlas.pipeline.store.committed_shards import read_part, row_totals
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.part_summary import stored_summary, summarise
from heatlas.pipeline.store.rewrite_shard import merge
from heatlas.pipeline.store.rows_to_table import build_table
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.samples import Row, Sample, Shard
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_none, wait_random


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(retries, "WAIT", wait_none())


def test_a_change_is_one_step(place):
    put(f"{place}/a", b"one")
    assert exchange(f"{place}/a", lambda data: data + b" two")
    assert not exchange(f"{place}/a", lambda data: None)
    assert put_if_absent(f"{place}/b", b"x")
    seen = []
    exchange(f"{place}/a", lambda data: seen.append(data))
    assert seen == [b"one two"]


def test_a_missing_file_cannot_be_changed(tmp_path):
    with pytest.raises(StorageError, match=r"cannot replace .*part"):
        exchange(str(tmp_path / "part"), lambda data: data)


def _count_up(path: str, times: int, start) -> None:
    start.wait()
    retries.ATTEMPTS, retries.WAIT = 2000, wait_random(0, 0.01)
    for _ in range(times):
        exchange(path, lambda data: str(int(data) + 1).encode())


def test_racing_processes_lose_no_change(tmp_path):
    """Each reads a number and writes the next one: with any change lost the sum would be smaller."""
    context = multiprocessing.get_context("spawn")
    path, start = tmp_path / "number", context.Barrier(3)
    path.write_bytes(b"0")
    racers = [context.Process(target=_count_up, args=(str(path), 20, start)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0] * 3
    assert path.read_bytes() == b"60"
    assert os.listdir(tmp_path) == ["number"]


def test_a_lock_that_is_never_given_back_ends_in_an_error(tmp_path, no_pauses):
    path = tmp_path / "part"
    path.write_bytes(b"mine")
    with open(path, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"cannot replace .*part after 6 attempts"):
            exchange(str(path), lambda data: b"lost")
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, no_pauses, call):
    path = tmp_path / "part"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match="free some space"):
        exchange(str(path), lambda data: b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["part"]


# --- merging


def failed(row: Row, text: str = "planted") -> Row:
    return Row(row.sample, "read_error", text)


STATES = st.lists(st.tuples(st.booleans(), st.sampled_from(["absent", "ok", "failed"])), min_size=1, max_size=8)


@given(states=STATES)
def test_only_rows_that_are_not_ok_are_replaced(states, layout_of_all, row_of_all):
    """Each state: whether the stored row is ok, and what the retry brings for it."""
    stored = [row_of_all(n) if fine else failed(row_of_all(n)) for n, (fine, _) in enumerate(states)]
    brought = [(n, what) for n, (_, what) in enumerate(states) if what != "absent"]
    new = [row_of_all(n) if what == "ok" else failed(row_of_all(n), "again") for n, what in reversed(brought)]
    merged = merge(build_table(stored, layout_of_all), build_table(new, layout_of_all))
    expected = [
        row_of_all(n) if fine or what == "ok" else failed(row_of_all(n), "planted" if what == "absent" else "again")
        for n, (fine, what) in enumerate(states)
    ]
    if all(fine or what == "absent" for fine, what in states):
        assert merged is None
    else:
        assert merged is not None
        assert merged.to_pylist() == build_table(expected, layout_of_all).to_pylist()


@pytest.fixture(scope="module")
def layout_of_all():
    return StoreLayout((6, 8), metrics=("drop_pct",), map_size=4)


@pytest.fixture(scope="module")
def row_of_all():
    def make(number: int) -> Row:
        values = np.random.default_rng(number).random((6, 8), dtype=np.float32)
        sample = Sample(f"img-{number}", f"/data/{number}", 0)
        return Row(sample, "ok", None, 6, 8, 0, 0, 0.5, 1.0, values, {"drop_pct": float(number)}, (1,), 3, 0.01, "cpu")

    return make


def test_two_retries_that_know_nothing_of_each_other_both_count(tmp_path, layout_of_all, row_of_all):
    rows = [row_of_all(0), failed(row_of_all(1)), failed(row_of_all(2))]
    ParquetSink(str(tmp_path), layout_of_all).commit(Shard(0, 0, 3), rows)
    sink = RetrySink(str(tmp_path), layout_of_all)
    assert sink.commit(Shard(0, 0, 3), [row_of_all(1), failed(row_of_all(2), "first")])
    assert sink.commit(Shard(0, 0, 3), [failed(row_of_all(1), "second"), row_of_all(2)])
    assert not sink.commit(Shard(0, 0, 3), [failed(row_of_all(1), "a zombie of yesterday")])
    assert row_totals(str(tmp_path))["statuses"] == {"ok": 3}
    assert read_part(str(tmp_path), 0)["drop_pct"].to_pylist() == [0.0, 1.0, 2.0]


def test_the_footer_speaks_of_the_new_rows(tmp_path, layout_of_all, row_of_all):
    ParquetSink(str(tmp_path), layout_of_all).commit(Shard(0, 0, 2), [row_of_all(0), failed(row_of_all(1))])
    RetrySink(str(tmp_path), layout_of_all).commit(Shard(0, 0, 2), [row_of_all(1)])
    table = read_part(str(tmp_path), 0)
    assert stored_summary(table.schema.metadata) == summarise(table)
    assert json.loads(table.schema.metadata[b"heatlas"])["method"] == "sise"


def test_a_damaged_file_is_not_overwritten(tmp_path, layout_of_all, row_of_all):
    path = Path(tmp_path) / part_path(0)
    path.parent.mkdir()
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(StorageError, match=r"part-000000.parquet: .*heatlas verify"):
        RetrySink(str(tmp_path), layout_of_all).commit(Shard(0, 0, 1), [row_of_all(0)])
    assert path.read_bytes() == b"PAR1 not really"
