"""Two shards of a worker in work at once: the last images of one with the first of the next, and its commit in a thread beside them."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch
from heatlas.errors import RunError, StorageError
from heatlas.workers.events import (
    EarlierShard,
    ImagesAlive,
    ShardDone,
    ShardFailed,
    ShardGivenUp,
    ShardOpen,
    StartReport,
    WorkerDied,
    Writing,
)
from heatlas.workers.in_process import explain_in_process
from heatlas.workers.policy.orders import Complete, Dispatch, Finish, Lost, Quarantine, Spawn
from heatlas.workers.policy.policy import Limits, Policy
from heatlas.workers.samples import Shard
from heatlas.workers.worker.shard_attempt import ShardAttempt
from heatlas.workers.worker.shard_worker import ShardWorker

from ..support.fake_engine import FakeEngine, FakeSession, NoReader, PickleSink, fake_spec, make_shards


class Bench:
    """A worker and the shards that it is given one after the other, all but the last left open."""

    def __init__(self, folder, uris, size, sink=None, **spec):
        self.engine = FakeEngine(fake_spec(), None)
        self.sink = sink or PickleSink(folder)
        self.shards, self.samples = make_shards(uris, size)
        self.worker = ShardWorker(fake_spec(**spec), NoReader(), self.sink, lambda spec, reader: self.engine)

    def run(self):
        """Events by shard, in order."""
        for shard in self.shards:
            follows = shard is not self.shards[-1]
            for event in self.worker.run(shard, self.samples[shard.index], leave_open=follows):
                yield (event.shard, event.event) if isinstance(event, EarlierShard) else (shard.index, event)

    def ends(self):
        """How each shard ended."""
        ends = {}
        for shard, event in self.run():
            if isinstance(event, ShardDone | ShardFailed):
                assert shard not in ends, "a shard ends once"
                ends[shard] = event
        return ends

    def statuses(self, index):
        return [row.status for row in self.sink.rows(index)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("depth", [0, 2, 7])
def test_every_shard_is_committed_once_with_its_own_rows_in_order(tmp_path, size, depth):
    bench = Bench(tmp_path, ["", "", "decode:raise", "", "push:raise", "", "", ""], size)
    bench.engine.session = FakeSession(depth)
    ends = bench.ends()
    assert [end.first for _, end in sorted(ends.items())] == [True] * len(bench.shards)
    rows = [row for shard in bench.shards for row in bench.sink.rows(shard.index)]
    assert [row.sample.id for row in rows] == [f"s{number}" for number in range(8)]
    assert [row.status for row in rows] == ["ok", "ok", "decode_error", "ok", "explain_error", "ok", "ok", "ok"]


def test_images_of_the_next_shard_are_in_flight_before_the_last_of_the_one_before_has_left(tmp_path):
    bench = Bench(tmp_path, [""] * 8, 4)
    pushed, left = [], []
    push, leave = bench.engine.session.push, bench.engine.session._leave
    bench.engine.session.push = lambda key, image, **options: (pushed.append(key), push(key, image, **options))[1]

    def noted(keep):
        gone = leave(keep)
        left.extend((each.key, len(pushed)) for each in gone)
        return gone

    bench.engine.session._leave = noted
    bench.ends()
    assert left[3] == (3, 6), "the last image of the first shard leaves when two of the second are in flight"


def test_every_image_is_announced_under_its_shard_before_it_is_touched_and_until_its_row_is_there(tmp_path):
    bench = Bench(tmp_path, [""] * 9, 3)
    touched = []
    prepare = bench.engine.prepare
    bench.engine.prepare = lambda sample, reader: (touched.append(int(sample.id[1:])), prepare(sample, reader))[1]
    announced, alive, over = set(), {}, set()
    for shard, event in bench.run():
        if isinstance(event, ImagesAlive):
            assert shard not in over
            alive[shard] = {3 * shard + position for position in event.alive}
            announced |= alive[shard]
        if isinstance(event, Writing):
            assert bench.worker._held[shard].images == 3, "all rows are there before the commit"
            over.add(shard)
        assert set(touched) <= announced
        assert len([index for index in alive if index not in over]) <= 2, "three shards in work"
    assert announced == set(range(9))


class SlowSink(PickleSink):
    """Its first commit takes until the second shard's images are decoded."""

    def __init__(self, folder):
        super().__init__(folder)
        self.go, self.threads = threading.Event(), []

    def commit(self, shard, rows):
        self.threads.append(threading.current_thread().name)
        if shard.index == 0:
            assert self.go.wait(20), "the next shard does not go on meanwhile"
        return super().commit(shard, rows)


def test_a_commit_goes_on_beside_the_next_shard(tmp_path):
    sink = SlowSink(tmp_path)
    bench = Bench(tmp_path, [""] * 12, 6, sink)
    prepare = bench.engine.prepare

    def prepared(sample, reader):
        if sample.id == "s11":
            sink.go.set()
        return prepare(sample, reader)

    bench.engine.prepare = prepared
    ends = bench.ends()
    assert [type(end) for end in ends.values()] == [ShardDone, ShardDone]
    assert sink.threads[0].startswith("commit")
    assert ends[0].stages["storing"] > 0


class FailingOnce(PickleSink):
    def __init__(self, folder, error):
        super().__init__(folder)
        self.errors = [error]

    def commit(self, shard, rows):
        if self.errors:
            raise self.errors.pop()
        return super().commit(shard, rows)


def storage_error(text, outage):
    error = StorageError(text)
    error.outage = outage
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("the disk is gone"), ShardFailed("error", "OSError: the disk is gone")),
        (storage_error("down", "passing"), ShardFailed("storage", "down")),
        (storage_error("full", "permanent"), ShardFailed("storage", "full", permanent=True)),
    ],
)
def test_a_commit_that_fails_beside_the_next_shard_is_told_as_its_own(tmp_path, error, told):
    bench = Bench(tmp_path, [""] * 8, 4, FailingOnce(tmp_path, error))
    ends = bench.ends()
    assert ends[0] == told
    assert isinstance(ends[1], ShardDone)
    assert not bench.sink.path(0).exists()
    first, *_ = list(bench.worker.run(bench.shards[0], bench.samples[0]))
    expected = Writing if told.kind == "storage" else ImagesAlive
    assert isinstance(first, expected), "kept rows are put, and not computed again"
    assert bench.statuses(0) == ["ok"] * 4


def test_only_the_guilty_image_of_a_batch_of_two_shards_gets_the_error(tmp_path):
    bench = Bench(tmp_path, ["", "", "", "", "push:raise", "", "", ""], 4)
    bench.ends()
    assert bench.statuses(0) == ["ok"] * 4
    assert bench.statuses(1) == ["explain_error", "ok", "ok", "ok"]


def test_too_little_memory_in_a_batch_of_two_shards_costs_no_image(tmp_path):
    bench = Bench(tmp_path, [""] * 8, 4)
    session, push = bench.engine.session, bench.engine.session.push

    def pushed(key, image, **options):
        if bench.engine.batch_size > 2 and len(session.held) >= 2 and key > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return push(key, image, **options)

    session.push = pushed
    ends = bench.ends()
    assert bench.statuses(0) == bench.statuses(1) == ["ok"] * 4
    assert ends[1].batch_size == 2


def test_a_shard_that_fails_does_not_take_the_one_before_along(tmp_path):
    bench = Bench(tmp_path, [""] * 8, 4)
    prepare = bench.engine.prepare

    def prepared(sample, reader):
        if sample.id == "s5":
            raise RunError("the stored part is damaged")
        return prepare(sample, reader)

    bench.engine.prepare = prepared
    ends = bench.ends()
    assert isinstance(ends[0], ShardDone)
    assert ends[1] == ShardFailed("error", "the stored part is damaged")
    assert bench.statuses(0) == ["ok"] * 4


def test_images_that_the_engine_loses_are_missed_in_their_own_shard(tmp_path):
    bench = Bench(tmp_path, [""] * 8, 4)
    leave = bench.engine.session._leave
    bench.engine.session._leave = lambda keep: [each for each in leave(keep) if each.key != 3]
    ends = bench.ends()
    assert ends[0] == ShardFailed("error", "RuntimeError: the engine returned no result for ['s3']")
    assert isinstance(ends[1], ShardDone)


def own_attempts(bench):
    """Those that exist now."""
    existing = [each for each in gc.get_objects() if type(each) is ShardAttempt]
    return [weakref.ref(each) for each in existing if each.engine is bench.engine]


def test_nothing_of_a_shard_stays_in_memory_once_it_is_over(tmp_path):
    """Also without the collector of cycles, which runs when it likes."""
    bench = Bench(tmp_path, [""] * 15, 3)
    attempts = []
    gc.collect()
    gc.disable()
    try:
        for _ in bench.run():
            attempts += own_attempts(bench)
        assert attempts
        assert not [alive for alive in attempts if alive() is not None]
    finally:
        gc.enable()


def test_a_careful_shard_is_alone(tmp_path):
    bench = Bench(tmp_path, [""] * 6, 3)
    list(bench.worker.run(bench.shards[0], bench.samples[0], leave_open=True))
    alone = False
    for event in bench.worker.run(bench.shards[1], bench.samples[1], careful=True):
        alone |= isinstance(event, EarlierShard) and isinstance(event.event, ShardDone)
        if isinstance(event, ImagesAlive):
            assert alone
            assert len(event.alive) == 1
    assert bench.statuses(0) == bench.statuses(1) == ["ok"] * 3


def test_too_many_errors_are_not_committed_beside_the_next_shard(tmp_path):
    uris = ["decode:sample_error"] * 20 + [""] * 20
    bench = Bench(tmp_path, uris, 20, max_error_rate=0.9)
    assert bench.ends()[0].kind == "too_many_errors"
    assert not bench.sink.path(0).exists()


@pytest.mark.parametrize("overlap", [False, True])
def test_rows_are_the_same_with_and_without(tmp_path, overlap):
    shards, samples = make_shards(["", "push:raise", "", "decode:sample_error"] * 5, 3)
    outcome = explain_in_process(
        shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), PickleSink(tmp_path), overlap=overlap,
        build=lambda spec, reader: FakeEngine(spec, reader),
    )  # fmt: skip
    assert outcome.done == list(range(7))
    assert outcome.statuses == {"ok": 10, "explain_error": 5, "decode_error": 5}


class Desk:
    """Drives a policy that lets shards overlap."""

    def __init__(self, shards, workers=1, **limits):
        plan = [Shard(index, index * 10, index * 10 + 10) for index in range(shards)]
        self.policy, self.now, self.orders = Policy(plan, Limits(overlap=True, **limits)), 0.0, []
        self.note(self.policy.set_capacity(workers, 0.0))
        for spawn in self.of(Spawn):
            self.say(spawn.worker, StartReport("cpu"))

    def note(self, orders):
        self.orders += orders
        return orders

    def say(self, worker, event):
        return self.note(self.policy.handle(worker, event, self.now))

    def of(self, kind):
        return [order for order in self.orders if isinstance(order, kind)]


def done(rows=10):
    return ShardDone(rows, rows, first=True, statuses={"ok": rows})


def dispatch(worker, shard, *, careful=False, leave_open=False):
    return Dispatch(worker, shard, frozenset(), careful, leave_open)


def test_the_next_shard_follows_one_that_is_open_and_the_last_is_completed():
    desk = Desk(shards=3)
    assert desk.of(Dispatch) == [dispatch(0, 0, leave_open=True)]
    assert desk.say(0, ShardOpen()) == [dispatch(0, 1, leave_open=True)]
    assert desk.say(0, EarlierShard(0, done())) == []
    assert desk.say(0, ShardOpen()) == [dispatch(0, 2)], "none follows the last"
    assert desk.say(0, EarlierShard(1, done())) == []
    assert desk.say(0, done()) == [Finish()]
    assert desk.policy.done == [0, 1, 2]


def test_a_shard_that_none_follows_any_more_is_completed():
    desk = Desk(shards=3, workers=2)
    assert desk.of(Dispatch) == [dispatch(0, 0, leave_open=True), dispatch(1, 1, leave_open=True)]
    assert desk.say(0, ShardOpen()) == [dispatch(0, 2)]
    assert desk.say(1, ShardOpen()) == [Complete(1)]
    assert desk.say(1, done()) == []
    desk.say(0, EarlierShard(0, done()))
    assert desk.say(0, done()) == [Finish()]


def test_an_interrupt_completes_what_is_open():
    desk = Desk(shards=3)
    assert desk.note(desk.policy.stop(0.0)) == []
    assert desk.say(0, ShardOpen()) == [Complete(0)]
    assert [type(order) for order in desk.say(0, done())] == [ShardGivenUp, ShardGivenUp, Finish]
    assert (desk.policy.done, sorted(desk.policy.undone)) == ([0], [1, 2])


def test_a_death_costs_both_shards_and_both_are_then_done_carefully_and_alone():
    desk = Desk(shards=3)
    desk.say(0, ShardOpen())
    desk.say(0, EarlierShard(0, ImagesAlive((8, 9), 8)))
    desk.say(0, ImagesAlive((0,), 0))
    desk.say(0, WorkerDied("crash", "SIGSEGV"))
    assert desk.of(Lost) == [Lost(0, "crash", "SIGSEGV", 1, (0,), 0, (8, 9))]
    desk.now = 100.0
    desk.note(desk.policy.tick(100.0))
    assert desk.say(1, StartReport("cpu")) == [dispatch(1, 0, careful=True)]
    assert desk.say(1, done()) == [dispatch(1, 1, careful=True)]
    assert desk.say(1, done()) == [dispatch(1, 2)]
    desk.say(1, done())
    assert desk.policy.done == [0, 1, 2]


def test_a_death_beside_a_commit_blames_images_of_the_other_shard_only():
    desk = Desk(shards=2, shard_retries=9)
    desk.say(0, ShardOpen())
    desk.say(0, EarlierShard(0, ImagesAlive((9,), 9)))
    for _ in range(3):
        worker = desk.of(Dispatch)[-1].worker
        if desk.of(Dispatch)[-1].shard == 0 and worker:
            desk.say(worker, done())
        latest = desk.of(Dispatch)[-1]
        assert latest.shard == 1
        if not worker:
            desk.say(0, EarlierShard(0, Writing()))
        desk.say(latest.worker, ImagesAlive((4,), 4))
        desk.say(latest.worker, WorkerDied("crash", "SIGSEGV"))
        desk.now += 100
        desk.note(desk.policy.tick(desk.now))
        desk.say(desk.of(Spawn)[-1].worker, StartReport("cpu"))
    assert desk.of(Quarantine) == [Quarantine(1, 4)]


def test_a_lost_node_blames_no_image_of_either():
    desk = Desk(shards=2)
    desk.say(0, ShardOpen())
    desk.say(0, EarlierShard(0, ImagesAlive((9,), 9)))
    desk.say(0, ImagesAlive((0,), 0))
    desk.say(0, WorkerDied("infrastructure", "node lost"))
    desk.now = 100.0
    desk.note(desk.policy.tick(desk.now))
    assert desk.say(1, StartReport("cpu")) == [dispatch(1, 0, leave_open=True)]


def test_kept_rows_are_put_when_the_shard_beside_them_is_complete():
    desk = Desk(shards=3)
    desk.say(0, ShardOpen())
    desk.say(0, EarlierShard(0, ShardFailed("storage", "down")))
    desk.now = 100.0
    assert desk.say(0, ShardOpen()) == [Complete(0)]
    assert desk.say(0, done()) == [dispatch(0, 0)]
    assert desk.say(0, done()) == [dispatch(0, 2)]


def test_a_commit_that_takes_long_beside_a_shard_is_given_its_time():
    desk = Desk(shards=2, image_timeout=10.0, write_timeout=50.0)
    desk.say(0, ShardOpen())
    desk.say(0, EarlierShard(0, Writing()))
    desk.now = 40.0
    assert desk.note(desk.policy.tick(40.0)) == []
    desk.note(desk.policy.tick(60.0))
    assert desk.of(Lost) == [Lost(0, "timeout", "no progress for 50 s", 1, (), 0, ())]
