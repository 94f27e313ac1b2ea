"""The shard worker without Ray: events, rows, and whose fault an exception is."""

from __future__ import annotations

import pickle

import pytest
import torch
from heatlas.engine.scoring.memory_errors import is_out_of_memory
from heatlas.errors import RunError
from heatlas.workers.events import ImagesAlive, ShardDone, ShardFailed, Writing
from heatlas.workers.policy.circuit_breaker import Breaker
from heatlas.workers.targets import parse_target
from heatlas.workers.worker.error_kinds import DEVICE_FAULT_EXIT, describe, may_be_device_fault
from heatlas.workers.worker.shard_worker import ShardWorker

from ..support.fake_engine import FailingSink, FakeEngine, FakeSession, NoReader, PickleSink, fake_spec, make_shards


class Bench:
    """A worker over one shard; `engine` can be changed before `run`."""

    def __init__(self, folder, uris, **spec):
        self.engine = FakeEngine(fake_spec(), None)
        self.sink = PickleSink(folder)
        self.exits = []
        [self.shard], samples = make_shards(uris, max(len(uris), 1))
        self.samples = samples[0]
        self.spec = fake_spec(**spec)

    def run(self, **options):
        worker = ShardWorker(self.spec, NoReader(), self.sink, lambda spec, reader: self.engine, self.exit)
        return list(worker.run(self.shard, self.samples, **options))

    def exit(self, code):
        self.exits.append(code)
        raise SystemExit(code)

    @property
    def rows(self):
        return self.sink.rows(0)

    @property
    def statuses(self):
        return [row.status for row in self.rows]


def test_rows_stand_in_order_one_per_sample(tmp_path):
    bench = Bench(tmp_path, ["", "decode:sample_error", "", "decode:raise", ""])
    *_, writing, done = bench.run(quarantine=frozenset({4}))
    assert writing == Writing()
    assert isinstance(done, ShardDone)
    assert bench.statuses == ["ok", "decode_error", "ok", "decode_error", "quarantined"]
    assert [row.sample.id for row in bench.rows] == ["s0", "s1", "s2", "s3", "s4"]
    assert bench.rows[1].error == "not an image"
    assert bench.rows[3].error == "RuntimeError: the fake engine raised"
    assert (bench.rows[0].height, bench.rows[0].width) == (4, 6)
    assert bench.rows[0].map.shape == (2, 2)
    assert done.statuses == {"ok": 2, "decode_error": 2, "quarantined": 1}
    assert done.metric_sums == {"drop_pct": (2.0, 2)}
    assert (done.rows, done.first, done.forwards, done.batch_size) == (5, True, 20, 8)


def test_second_commit_of_a_shard_is_not_first(tmp_path):
    bench = Bench(tmp_path, [""])
    assert bench.run()[-1].first
    assert not bench.run()[-1].first


@pytest.mark.parametrize("careful", [False, True])
def test_every_image_is_announced_before_it_is_touched(tmp_path, careful):
    bench = Bench(tmp_path, [""] * 6)
    touched = []
    prepare, push = bench.engine.prepare, bench.engine.session.push
    bench.engine.prepare = lambda sample, reader: (touched.append(int(sample.id[1:])), prepare(sample, reader))[1]
    bench.engine.session.push = lambda key, image, **options: (touched.append(key), push(key, image, **options))[1]
    worker = ShardWorker(bench.spec, NoReader(), bench.sink, lambda spec, reader: bench.engine)
    announced = set()
    for event in worker.run(bench.shard, bench.samples, careful=careful):
        assert set(touched) <= announced
        if isinstance(event, ImagesAlive):
            announced |= set(event.alive)
            assert len(event.alive) == 1 or not careful
    assert announced == set(touched) == set(range(6))


def test_images_in_flight_are_alive_until_their_row_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("heatlas.workers.worker.report_pace.LARGEST_GROUP", 1)
    bench = Bench(tmp_path, [""] * 5)
    events = [event for event in bench.run() if isinstance(event, ImagesAlive)]
    assert [event.alive for event in events] == [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 4), (3, 4)]
    assert [event.finished for event in events] == [0, 0, 0, 0, 1, 3]


def test_only_the_guilty_image_of_a_shared_batch_gets_the_error(tmp_path):
    bench = Bench(tmp_path, ["", "", "push:raise", "", ""])
    bench.run()
    assert bench.statuses == ["ok", "ok", "explain_error", "ok", "ok"]
    assert bench.rows[2].error == "RuntimeError: the fake engine raised"
    assert bench.rows[2].height == 4


class NoMemory(FakeSession):
    """Too little device memory for image 1 above a micro-batch of `fits`."""

    def __init__(self, engine, fits):
        super().__init__()
        self.engine, self.fits = engine, fits

    def push(self, key, image, **options):
        if key == 1 and self.engine.batch_size > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().push(key, image, **options)


def test_out_of_memory_takes_a_smaller_micro_batch(tmp_path):
    bench = Bench(tmp_path, ["", "", ""])
    bench.engine.session = NoMemory(bench.engine, fits=2)
    done = bench.run()[-1]
    assert bench.statuses == ["ok", "ok", "ok"]
    assert done.batch_size == 2


@pytest.mark.parametrize("size", [1, 3])
def test_out_of_memory_at_the_smallest_micro_batch_is_an_error_row(tmp_path, size):
    bench = Bench(tmp_path, [""] * size)
    bench.engine.session = NoMemory(bench.engine, fits=0)
    if size == 1:
        bench.engine.session.push = lambda *args, **options: (_ for _ in ()).throw(torch.OutOfMemoryError("no"))
    bench.run()
    assert bench.statuses == (["out_of_memory"] if size == 1 else ["ok", "out_of_memory", "ok"])


def test_broken_device_ends_the_process(tmp_path):
    bench = Bench(tmp_path, [""] * 3)
    bench.engine.usable = lambda: False
    bench.engine.session.finish = lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: illegal memory access"))
    with pytest.raises(SystemExit):
        bench.run()
    assert bench.exits == [DEVICE_FAULT_EXIT]
    assert not bench.sink.path(0).exists()


def test_cuda_error_on_a_usable_device_is_the_images(tmp_path):
    bench = Bench(tmp_path, [""])
    bench.engine.session.push = lambda *args, **options: (_ for _ in ()).throw(RuntimeError("CUDA error: bad shape"))
    bench.run()
    assert bench.statuses == ["explain_error"]


def test_a_lost_image_is_never_silent(tmp_path):
    bench = Bench(tmp_path, [""] * 2)
    bench.engine.session.finish = list
    assert bench.run()[-1] == ShardFailed("error", "RuntimeError: the engine returned no result for ['s0', 's1']")


def test_labels_as_targets(tmp_path):
    bench = Bench(tmp_path, [""] * 4, target=parse_target("label"))
    for sample, label in zip(bench.samples, [3, None, 10, -1], strict=True):
        object.__setattr__(sample, "label", label)
    bench.run()
    assert bench.statuses == ["ok", "label_error", "label_error", "label_error"]
    assert bench.rows[0].target == 3
    assert (
        bench.rows[1].error
        == "the sample has no label, or one that names no class of the model, but the target is 'label'"
    )
    assert bench.rows[2].error == "label 10 is no class of the model; it must be between 0 and 9"


def test_one_target_for_all(tmp_path):
    bench = Bench(tmp_path, [""] * 2, target=parse_target(7))
    bench.run()
    assert [row.target for row in bench.rows] == [7, 7]


def test_breaker_refuses_the_commit(tmp_path):
    bench = Bench(tmp_path, ["decode:sample_error"] * 20, max_error_rate=0.9)
    failed = bench.run()[-1]
    assert failed.kind == "too_many_errors"
    assert "20 of the last 20 images failed, more than the allowed share of 0.9" in failed.text
    assert not bench.sink.path(0).exists()


def test_breaker_looks_at_the_recent_images_only():
    breaker = Breaker(0.5)
    assert not breaker.add(19, 19)
    assert breaker.add(0, 1)
    assert not breaker.add(0, 200)
    assert breaker.add(256, 256)
    assert not Breaker(1.0).add(500, 500)


def test_storage_failure_is_told_as_data(tmp_path):
    bench = Bench(tmp_path, [""])
    bench.sink = FailingSink()
    assert bench.run()[-2:] == [Writing(), ShardFailed("error", "OSError: the disk is full")]


def test_empty_shard(tmp_path):
    bench = Bench(tmp_path, [""])
    bench.samples = []
    assert bench.run()[-1].rows == 0


def test_start_reports_a_failure_as_data():
    def build(spec, reader):
        raise ZeroDivisionError

    report = ShardWorker(fake_spec(), NoReader(), FailingSink(), build).start()
    assert report.error == "ZeroDivisionError"
    assert pickle.loads(pickle.dumps(report)) == report


def test_faults():
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert may_be_device_fault(RuntimeError("CUDA error: device-side assert triggered"))
    assert not may_be_device_fault(RuntimeError("shapes do not match"))
    assert describe(RunError("the\n  cause")) == "the cause"
    assert len(describe(ValueError("x" * 2000))) == 500
