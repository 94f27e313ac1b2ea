"""The policy's decisions by hand, one rule of runtime.md each."""

from __future__ import annotations

import pytest
from heatlas.workers.events import (
    ImagesAlive,
    ShardDone,
    ShardFailed,
    ShardGivenUp,
    StartReport,
    WorkerDied,
    WorkerPlaced,
    Writing,
)
from heatlas.workers.policy.orders import Abort, Dispatch, Finish, Kill, Lost, Quarantine, Spawn
from heatlas.workers.policy.policy import Limits, Policy
from heatlas.workers.samples import Shard


def done(failed: int, rows: int) -> ShardDone:
    """A committed shard of which some rows failed."""
    return ShardDone(rows, rows, first=True, statuses={"ok": rows - failed, "decode_error": failed})


class Desk:
    """Drives a policy and keeps what it ordered."""

    def __init__(self, shards: int = 1, workers: int = 1, **limits):
        plan = [Shard(index, index * 10, index * 10 + 10) for index in range(shards)]
        self.policy = Policy(plan, Limits(**limits))
        self.now = 0.0
        self.orders = []
        self.offer(workers)
        for spawn in self.of(Spawn):
            self.say(spawn.worker, StartReport("cpu"))

    def note(self, orders):
        self.orders += orders
        return orders

    def say(self, worker, event):
        return self.note(self.policy.handle(worker, event, self.now))

    def offer(self, workers):
        return self.note(self.policy.set_capacity(workers, self.now))

    def stop(self):
        return self.note(self.policy.stop(self.now))

    def wait(self, seconds: float):
        self.now += seconds
        return self.note(self.policy.tick(self.now))

    def of(self, kind):
        return [order for order in self.orders if isinstance(order, kind)]

    @property
    def last(self) -> Dispatch:
        return self.of(Dispatch)[-1]

    def die(self, *alive: int, kind="crash", writing=False):
        """The worker that works on the last dispatched shard dies; a new one is started and gets ready."""
        worker = self.last.worker
        self.say(worker, ImagesAlive(alive, 0))
        if writing:
            self.say(worker, Writing())
        self.say(worker, WorkerDied(kind, "SIGSEGV"))
        self.wait(100)
        spawned = self.of(Spawn)[-1].worker
        if not self.policy.ended:
            self.say(spawned, StartReport("cpu"))


def test_calm_run():
    desk = Desk(shards=3, workers=2)
    assert [order.worker for order in desk.of(Spawn)] == [0, 1]
    assert [order.shard for order in desk.of(Dispatch)] == [0, 1]
    desk.say(0, done(0, 10))
    assert desk.last == Dispatch(0, 2, frozenset(), careful=False)
    desk.say(1, done(0, 10))
    assert desk.say(0, done(0, 10)) == [Finish()]
    assert sorted(desk.policy.done) == [0, 1, 2]
    assert desk.policy.undone == {}


def test_no_more_workers_than_shards():
    assert len(Desk(shards=2, workers=9).of(Spawn)) == 2


def test_new_capacity_is_used():
    desk = Desk(shards=5, workers=1)
    assert len(desk.of(Spawn)) == 1
    desk.offer(3)
    assert len(desk.of(Spawn)) == 3


def test_shard_of_a_dead_worker_goes_to_the_front_and_is_then_done_carefully():
    desk = Desk(shards=3)
    assert desk.last == Dispatch(0, 0, frozenset(), careful=False)
    desk.die(4)
    assert desk.last == Dispatch(1, 0, frozenset(), careful=True)
    desk.say(1, done(0, 10))
    assert desk.last == Dispatch(1, 1, frozenset(), careful=False)


def test_respawn_backs_off():
    desk = Desk(backoff=2.0, backoff_most=3.0)
    desk.say(0, WorkerDied("crash", "gone"))
    assert len(desk.of(Spawn)) == 1
    desk.wait(1.9)
    assert len(desk.of(Spawn)) == 1
    desk.wait(0.2)
    assert len(desk.of(Spawn)) == 2
    desk.say(1, StartReport("cpu"))
    desk.say(1, WorkerDied("crash", "gone"))
    desk.wait(2.9)
    assert len(desk.of(Spawn)) == 2
    desk.wait(0.2)
    assert len(desk.of(Spawn)) == 3


def test_third_consecutive_death_quarantines():
    desk = Desk()
    desk.die(3, 4, 5)
    desk.die(4)
    assert desk.of(Quarantine) == []
    desk.die(4)
    assert desk.of(Quarantine) == [Quarantine(0, 4)]
    assert desk.last.quarantine == frozenset({4})


def test_two_deaths_that_are_not_consecutive_blame_nobody():
    """Regression: a prototype counted deaths of an image without asking whether they followed each other."""
    desk = Desk(shard_retries=50)
    for alive in [4, 4, 7, 4, 4, 7, 4]:
        desk.die(alive)
    assert desk.of(Quarantine) == []


def test_death_during_the_write_blames_nobody_and_breaks_the_row():
    """Regression: a prototype blamed the last image of the shard."""
    desk = Desk(shard_retries=50)
    for writing in [True, True, True, False, False, True, False, False]:
        desk.die(9, writing=writing)
    assert desk.of(Quarantine) == []
    assert desk.of(Lost)[0].alive == ()


def test_lost_node_blames_nobody_and_counts_apart():
    desk = Desk(shard_retries=0, infrastructure_retries=5)
    for _ in range(5):
        desk.die(4, kind="infrastructure")
    assert desk.of(Quarantine) == []
    assert desk.of(ShardGivenUp) == []
    assert not desk.last.careful
    desk.die(4, kind="infrastructure")
    assert [order.shard for order in desk.of(ShardGivenUp)] == [0]


def test_two_killers_in_one_shard_are_both_found_within_the_cap_of_one():
    desk = Desk(shard_retries=3)
    for killer in [2, 2, 2, 6, 6, 6]:
        desk.die(killer)
    assert desk.of(Quarantine) == [Quarantine(0, 2), Quarantine(0, 6)]
    assert desk.last.quarantine == frozenset({2, 6})


def test_shard_over_its_cap_is_left_undone_and_the_run_goes_on():
    desk = Desk(shards=2, shard_retries=2)
    for image in [1, 2, 3]:
        desk.die(image)
    [given_up] = desk.of(ShardGivenUp)
    assert given_up.shard == 0
    assert given_up.reason == "3 attempts failed, the last: SIGSEGV"
    assert desk.last.shard == 1
    assert desk.say(desk.last.worker, done(0, 10)) == [Finish()]
    assert desk.policy.done == [1]
    assert set(desk.policy.undone) == {0}


def test_failed_shard_is_retried_on_the_living_worker_after_a_wait():
    desk = Desk(shard_retries=1)
    assert desk.say(0, ShardFailed("error", "storage is down")) == []
    assert desk.wait(10) == [Dispatch(0, 0, frozenset(), careful=False)]
    assert ShardGivenUp(0, "2 attempts failed, the last: storage is down") in desk.say(
        0, ShardFailed("error", "storage is down")
    )


def test_silence_kills_and_blames_the_images_in_flight():
    desk = Desk(image_timeout=30.0)
    desk.say(0, ImagesAlive((5,), 0))
    desk.wait(29)
    assert desk.of(Kill) == []
    desk.wait(2)
    assert [order.worker for order in desk.of(Kill)] == [0]
    assert desk.of(Lost) == [Lost(0, "timeout", "no progress for 30 s", 0, (5,))]
    assert desk.policy.in_flight == {}


def test_a_write_may_take_longer_than_an_image():
    desk = Desk(image_timeout=30.0, write_timeout=100.0)
    desk.say(0, Writing())
    desk.wait(99)
    assert desk.of(Kill) == []
    desk.wait(2)
    assert len(desk.of(Kill)) == 1


def test_late_words_of_a_killed_worker_change_nothing():
    desk = Desk(image_timeout=30.0)
    desk.wait(31)
    assert desk.say(0, done(0, 10)) == []
    assert desk.say(0, WorkerDied("crash", "killed")) == []
    assert desk.policy.done == []


def test_starts_that_fail_in_a_row_abort_with_the_cause():
    desk = Desk(shards=2, workers=0, failed_starts=3)
    desk.offer(1)
    for worker in range(3):
        desk.say(worker, StartReport(error="weights missing"))
        desk.wait(100)
    [abort] = desk.of(Abort)
    assert abort == Abort("start", "3 workers in a row could not start: weights missing")
    assert set(desk.policy.undone) == {0, 1}


def test_a_start_that_hangs_is_killed_and_counts_as_failed():
    desk = Desk(workers=0, start_timeout=50.0, failed_starts=2)
    desk.offer(1)
    desk.say(0, WorkerPlaced(1, "host"))
    desk.wait(49)
    assert desk.of(Kill) == []
    desk.wait(2)
    assert desk.of(Kill) == [Kill(0, "no model after 50 s")]
    assert desk.of(Lost) == [Lost(0, "start", "no model after 50 s", None, ())]
    desk.wait(100)
    desk.say(1, WorkerPlaced(1, "host"))
    desk.wait(51)
    assert desk.of(Abort) == [Abort("start", "2 workers in a row could not start: no model after 50 s")]


def test_waiting_for_room_in_the_cluster_is_no_failed_start():
    desk = Desk(workers=0, start_timeout=50.0)
    desk.offer(1)
    desk.wait(10_000)
    assert desk.of(Kill) == []
    desk.say(0, WorkerPlaced(1, "host"))
    desk.wait(49)
    desk.say(0, StartReport("cpu"))
    assert desk.last.worker == 0


def test_a_start_that_works_ends_the_row():
    desk = Desk(shards=9, workers=0, failed_starts=2)
    desk.offer(1)
    desk.say(0, StartReport(error="x"))
    desk.wait(100)
    desk.say(1, StartReport("cpu"))
    desk.say(1, WorkerDied("crash", "x"))
    desk.wait(100)
    desk.say(2, StartReport(error="x"))
    assert desk.of(Abort) == []


def test_failing_starts_beside_a_working_worker_do_not_abort():
    desk = Desk(shards=9, workers=1)
    desk.offer(2)
    for worker in range(1, 6):
        desk.say(worker, StartReport(error="bad node"))
        desk.wait(100)
    assert desk.of(Abort) == []
    assert len(desk.of(Spawn)) > 5


def test_breaker_of_a_worker_aborts():
    desk = Desk(shards=2)
    desk.say(0, ShardFailed("too_many_errors", "all failed"))
    assert desk.of(Abort) == [Abort("too_many_errors", "all failed")]
    assert set(desk.policy.undone) == {0, 1}


def test_breaker_adds_up_small_shards():
    desk = Desk(shards=9, max_error_rate=0.5)
    desk.say(0, done(6, 10))
    assert desk.of(Abort) == []
    desk.say(0, done(6, 10))
    [abort] = desk.of(Abort)
    assert abort.reason.startswith("12 of the last 20 images failed, more than the allowed share of 0.5")


def test_stop_finishes_what_is_in_work_and_begins_nothing():
    desk = Desk(shards=3, workers=1)
    assert desk.stop() == []
    orders = desk.say(0, done(0, 10))
    assert orders[-1] == Finish()
    assert desk.policy.done == [0]
    assert set(desk.policy.undone) == {1, 2}
    assert desk.of(Dispatch) == [Dispatch(0, 0, frozenset(), careful=False)]


def test_cut_short_names_everything_in_work():
    desk = Desk(shards=2)
    desk.policy.cut_short("second interrupt")
    assert desk.policy.undone == {0: "second interrupt", 1: "second interrupt"}
    assert desk.policy.ended


@pytest.mark.parametrize(
    "event", [ImagesAlive((1,), 0), done(0, 1), WorkerDied("crash", ""), StartReport("cpu"), ShardFailed("error", "")]
)
def test_unknown_workers_are_ignored(event):
    assert Desk().say(77, event) == []
