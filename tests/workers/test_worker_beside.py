"""What a worker does beside the device's work: pictures of maps in a thread, and reports of several fast images at once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.rows_to_table import build_table
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.events import ImagesAlive, ShardDone
from heatlas.workers.ray.sink_metrics import MeteredSink
from heatlas.workers.samples import Row, Sample
from heatlas.workers.worker.report_pace import LARGEST_GROUP, ReportPace
from heatlas.workers.worker.shard_worker import ShardWorker
from hypothesis import given
from hypothesis import strategies as st

from ..support.checkout import checkout_module
from ..support.fake_engine import NoReader, PickleSink, build_fake, fake_spec, make_shards


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sizes(gaps: list[float]) -> list[int]:
    clock = Clock()
    pace = ReportPace(clock)
    pace.reported()
    result = []
    for gap in gaps:
        clock.now += gap
        pace.reported()
        result.append(pace.size)
    return result


def test_groups_grow_while_reports_come_fast_and_shrink_where_they_are_slow():
    assert sizes([0.01] * 8) == [2, 4, 8, 16, 32, 64, 64, 64]
    assert sizes([0.01, 0.01, 0.2, 0.5, 0.5, 0.5]) == [2, 4, 4, 2, 1, 1]
    assert sizes([1.0, 1.0]) == [1, 1], "slow images are reported one by one"


def test_a_pause_says_nothing_about_images():
    clock = Clock()
    pace = ReportPace(clock)
    pace.size = 8
    pace.reported()
    pace.pause()
    clock.now += 60  # waited for a shard
    pace.reported()
    assert pace.size == 8


@given(rate=st.floats(1.0, 2000.0))
def test_a_worker_sends_at_most_some_ten_reports_a_second_once_it_knows_its_images(rate: float):
    clock = Clock()
    pace = ReportPace(clock)
    for _ in range(200):
        clock.now += pace.size / rate
        pace.reported()
    begun = clock.now
    for _ in range(100):
        clock.now += pace.size / rate
        pace.reported()
    per_second = 100 / (clock.now - begun)
    assert per_second <= 10.001 or pace.size == LARGEST_GROUP  # 64 at once: 31 a second at 2,000 images a second


def worker_of(folder, **spec) -> ShardWorker:
    return ShardWorker(fake_spec(**spec), NoReader(), PickleSink(folder), build_fake)


@pytest.mark.parametrize("careful", [False, True])
def test_a_group_is_reported_before_any_of_it_is_touched_and_nobody_is_forgotten(tmp_path, careful):
    worker, count = worker_of(tmp_path), 200
    [shard], samples = make_shards([""] * count, count)
    touched: list[int] = []
    prepare = worker.engine.prepare
    worker.engine.prepare = lambda sample, reader: (touched.append(int(sample.id[1:])), prepare(sample, reader))[1]
    reported: set[int] = set()
    events = 0
    for event in worker.run(shard, samples[0], careful=careful):
        assert set(touched) <= reported
        if isinstance(event, ImagesAlive):
            events += 1
            new = set(event.alive) - reported
            assert len(new) <= (1 if careful else LARGEST_GROUP)
            reported |= new
    assert isinstance(event, ShardDone)
    assert event.statuses == {"ok": count}
    assert reported == set(range(count))
    assert [row.sample.id for row in worker.sink.rows(0)] == [f"s{number}" for number in range(count)]
    if careful:
        assert events >= count


def test_as_many_threads_decode_as_the_worker_is_given(tmp_path):
    """All of them at once, or the barrier breaks."""
    worker = worker_of(tmp_path, decode_threads=5)
    [shard], samples = make_shards([""] * 10, 10)
    together = threading.Barrier(5, timeout=20)
    prepare = worker.engine.prepare
    worker.engine.prepare = lambda sample, reader: (together.wait(), prepare(sample, reader))[1]
    *_, done = worker.run(shard, samples[0])
    assert isinstance(done, ShardDone)
    assert done.statuses == {"ok": 10}


class EncodingSink(PickleSink):
    """Notes in which thread rows are encoded; fails for one of them."""

    def __init__(self, folder):
        super().__init__(folder)
        self.encoded: list[tuple[str, str]] = []

    def encode(self, row: Row) -> None:
        time.sleep(0.01)  # the commit must wait for it
        self.encoded.append((row.sample.id, threading.current_thread().name))
        if row.sample.id == "s1":
            raise ValueError("cannot be encoded")
        row.png = b"picture"

    def commit(self, shard, rows) -> bool:
        assert len(self.encoded) == sum(row.map is not None for row in rows)
        return super().commit(shard, [])


def test_rows_are_encoded_in_a_thread_before_the_commit(tmp_path):
    [shard], samples = make_shards(["", "", "decode:raise", "", ""], 5)
    sink = EncodingSink(tmp_path)
    worker = ShardWorker(fake_spec(), NoReader(), sink, build_fake)
    *_, done = worker.run(shard, samples[0])
    assert isinstance(done, ShardDone)
    assert sorted(name for name, _ in sink.encoded) == ["s0", "s1", "s3", "s4"]
    assert all(thread.startswith("encode") for _, thread in sink.encoded)
    assert done.stages["pictures"] > 0


def row_of(number: int) -> Row:
    values = np.random.default_rng(number).random((8, 8), dtype=np.float32)
    return Row(Sample(f"s{number}", "u"), "ok", prediction=0, target=0, map=values)


def test_a_picture_made_before_is_the_one_that_the_commit_would_make(tmp_path):
    layout = StoreLayout((8, 8), map_size=4)
    sink = MeteredSink(ParquetSink(str(tmp_path), layout))
    before, plain = row_of(1), row_of(1)
    sink.encode(before)
    assert before.png is not None
    assert before.png.startswith(b"\x89PNG")
    assert build_table([before], layout).equals(build_table([plain], layout))
    failed = Row(Sample("s2", "u"), "non_finite", "no", map=None)
    sink.encode(failed)
    assert failed.png is None
    MeteredSink(PickleSink(tmp_path)).encode(before)  # a sink that encodes nothing before the commit


def test_sixty_four_workers_at_two_thousand_images_a_second_do_not_overload_the_driver():
    """A driver takes some 1,600 reports a second through Ray; one by one they would be 2,128 with those of the shards."""
    driver_load = checkout_module("bench.speed.driver_load")
    _, single = driver_load.load(64, 2000.0, 4.0, grouped=False)
    _, grouped = driver_load.load(64, 2000.0, 4.0, grouped=True)
    assert single > 1900
    assert grouped < 800
