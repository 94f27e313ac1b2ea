"""Random faults against the policy. Four invariants hold after each of them:

1. every shard ends committed, or undone with its name and a reason, never both, and is never committed twice;
2. no image is quarantined without having been in flight at three consecutive deaths on its shard;
3. no innocent row is lost: a committed shard has a computed row for each image that is not rightly quarantined;
4. the loop ends.

The world keeps its own books of what it did to each image and believes nothing that the policy says of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from heatlas.workers.events import (
    EarlierShard,
    ImagesAlive,
    ShardDone,
    ShardFailed,
    ShardOpen,
    StartReport,
    WorkerDied,
    WorkerPlaced,
    Writing,
)
from heatlas.workers.policy.orders import Abort, Complete, Dispatch, Finish, Kill, Quarantine, Spawn
from heatlas.workers.policy.policy import Limits, Policy
from heatlas.workers.policy.quarantine import Blame
from heatlas.workers.samples import Shard
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

IMAGES = 4
LIMITS = {
    "image_timeout": 30,
    "write_timeout": 30,
    "start_timeout": 60,
    "infrastructure_retries": 5,
    "backoff_most": 2.0,
}


def done(failed: int, rows: int) -> ShardDone:
    """A committed shard of which some rows failed."""
    return ShardDone(rows, rows, first=True, statuses={"ok": rows - failed, "decode_error": failed})


class World:
    """A cluster that does what the policy orders, badly: the draws decide which fault comes next."""

    def __init__(self, shards: int, killers: set[tuple[int, int]], **limits):
        self.policy = Policy(
            [Shard(i, i * IMAGES, (i + 1) * IMAGES) for i in range(shards)], Limits(**LIMITS, **limits)
        )
        self.killers = {killer for killer in killers if killer[0] < shards}
        self.now = 0.0
        self.starting: list[int] = []
        self.placed: set[int] = set()
        self.working: dict[int, Dispatch] = {}
        self.earlier: dict[int, tuple[Dispatch, tuple[int, ...]]] = {}
        self.position: dict[int, int] = {}
        self.alive: dict[int, tuple[int, ...]] = {}
        self.silent: set[int] = set()
        self.gone: list[int] = []
        self.quarantined: dict[int, set[int]] = defaultdict(set)
        self.streaks: dict[int, Counter[int]] = defaultdict(Counter)
        self.computed: dict[int, set[int]] = {}
        self.aborted = self.finished = False

    def say(self, worker, event):
        self.obey(self.policy.handle(worker, event, self.now))

    def offer(self, workers):
        self.obey(self.policy.set_capacity(workers, self.now))

    def tick(self, seconds: float):
        self.now += seconds
        self.obey(self.policy.tick(self.now))

    def obey(self, orders):
        assert not (orders and self.finished), "orders after the end"
        for order in orders:
            match order:
                case Spawn():
                    self.starting.append(order.worker)
                case Dispatch():
                    self.take(order)
                case Complete():
                    assert order.worker not in self.working, "a worker is to complete a shard and has another one"
                    entry, self.alive[order.worker] = self.earlier.pop(order.worker)
                    self.working[order.worker] = replace(entry, leave_open=False)
                    self.position[order.worker] = IMAGES - 1
                case Kill():
                    if order.worker in self.working:
                        self.die(order.worker)
                    if order.worker in self.starting:
                        self.starting.remove(order.worker)
                    self.gone.append(order.worker)
                case Quarantine():
                    deaths = self.streaks[order.shard].pop(order.image, 0)
                    assert deaths >= 3, f"quarantined after {deaths} consecutive deaths"
                    self.quarantined[order.shard].add(order.image)
                case Abort():
                    self.aborted = True
                case Finish():
                    self.finished = True

    def take(self, order: Dispatch):
        in_flight = [*self.working.values(), *(entry for entry, _ in self.earlier.values())]
        assert order.shard not in {entry.shard for entry in in_flight}, "a shard is in flight twice"
        assert order.worker not in self.working, "a worker has two shards at once"
        assert not (order.careful and order.worker in self.earlier), "a careful shard beside another one"
        assert order.shard not in self.computed, "a committed shard is done again"
        assert order.quarantine == self.quarantined[order.shard], "other images are left out than were named"
        self.working[order.worker], self.position[order.worker], self.alive[order.worker] = order, -1, ()

    def die(self, worker: int):
        """The books of a death that may have been an image's doing; one in the write has no image in flight."""
        dead = [(self.working.pop(worker), self.alive.pop(worker))]
        dead += [self.earlier.pop(worker)] if worker in self.earlier else []
        for order, alive in dead:
            before = self.streaks[order.shard]
            self.streaks[order.shard] = Counter({image: before[image] + 1 for image in alive})
        self.silent.discard(worker)
        self.gone.append(worker)

    def step(self, worker: int, fault: str):
        """One thing happens to a working worker."""
        order = self.working[worker]
        if fault == "crash":
            self.die(worker)
            self.say(worker, WorkerDied("crash", fault))
        elif fault == "infrastructure":
            del self.working[worker]
            self.earlier.pop(worker, None)
            self.silent.discard(worker)
            self.gone.append(worker)
            self.say(worker, WorkerDied("infrastructure", fault))
        elif worker in self.silent:
            return
        elif fault == "hang":
            self.silent.add(worker)
        elif fault == "crash_in_write":
            while self.working.get(worker) is order and self.position[worker] < IMAGES:
                self.advance(worker, order)
            self.go_on(worker, commit=False)
            if worker in self.working:
                self.step(worker, "crash")
        elif fault == "failed" and worker in self.earlier:
            entry, _ = self.earlier.pop(worker)
            self.say(worker, EarlierShard(entry.shard, ShardFailed("error", "storage")))
        elif fault == "failed":
            del self.working[worker]
            self.say(worker, ShardFailed("error", "storage"))
        else:
            self.advance(worker, order)

    def advance(self, worker: int, order: Dispatch):
        position = self.position[worker] = self.position[worker] + 1
        if position < IMAGES:
            if position not in order.quarantine:
                self.touch(worker, order, position)
            if worker in self.working and position in (1, IMAGES - 1):
                self.go_on(worker, commit=position > 1)
        elif position == IMAGES and order.leave_open:
            self.go_on(worker, commit=True)
            del self.working[worker]
            self.earlier[worker] = order, self.alive[worker]
            self.say(worker, ShardOpen())
        elif position == IMAGES:
            self.go_on(worker, commit=True)
            self.alive[worker] = ()
            self.say(worker, Writing())
        else:
            self.commit(worker, order)

    def touch(self, worker: int, order: Dispatch, position: int):
        together = {position} if order.careful else {max(position - 1, 0), position} - order.quarantine
        self.alive[worker] = tuple(sorted(together))
        self.say(worker, ImagesAlive(self.alive[worker], 0))
        if (order.shard, position) in self.killers:
            self.die(worker)
            self.say(worker, WorkerDied("crash", "killer"))

    def go_on(self, worker: int, *, commit: bool):
        """With the shard before: its rows are there; and are committed."""
        if self.policy.ended or worker not in self.earlier:
            return
        order, _ = self.earlier[worker]
        self.earlier[worker] = order, ()
        self.say(worker, EarlierShard(order.shard, Writing()))
        if commit:
            del self.earlier[worker]
            self.computed[order.shard] = set(range(IMAGES)) - order.quarantine
            self.say(worker, EarlierShard(order.shard, done(0, IMAGES)))

    def commit(self, worker: int, order: Dispatch):
        del self.working[worker]
        self.computed[order.shard] = set(range(IMAGES)) - order.quarantine
        self.say(worker, done(0, IMAGES))

    def start(self, worker: int, how: str):
        """A worker gets its place, then its model; or not."""
        if how == "start_hang":
            if worker not in self.placed:
                self.placed.add(worker)
                self.say(worker, WorkerPlaced(1, "host"))
            return
        self.starting.remove(worker)
        if how == "start_failed":
            self.say(worker, StartReport(error="no weights"))
        elif how == "start_died":
            self.say(worker, WorkerDied("crash", "no memory"))
        elif how == "start_lost":
            self.say(worker, WorkerDied("infrastructure", "no node"))
        else:
            self.say(worker, WorkerPlaced(1, "host"))
            self.say(worker, StartReport("cpu"))

    def zombie(self, choice: int):
        """A worker that was written off speaks up: nothing may come of it."""
        if not self.gone:
            return
        worker = self.gone[choice % len(self.gone)]
        before = (list(self.policy.done), dict(self.policy.undone), dict(self.policy.in_flight))
        for late in (
            ImagesAlive((choice % IMAGES,), 0),
            done(0, IMAGES),
            WorkerDied("crash", "late"),
            StartReport("cpu"),
        ):
            self.say(worker, late)
        assert before == (self.policy.done, self.policy.undone, self.policy.in_flight)

    def happen(self, fault: str, choice: int):
        """The next draw."""
        if fault == "capacity":
            self.offer(choice % 4)
        elif fault == "wait":
            self.tick(choice * 5.0)
        elif fault == "zombie":
            self.zombie(choice)
        elif self.starting and (fault.startswith("start") or choice % 2 or not self.working):
            self.start(self.starting[0], fault)
        elif self.working:
            self.step(sorted(self.working)[choice % len(self.working)], fault)

    def check(self):
        """The four invariants; called at the end."""
        done, undone = Counter(self.policy.done), self.policy.undone
        planned = {shard for shard, _ in done.items()} | set(undone)
        assert self.policy.ended, "the loop does not end"
        assert planned == set(range(len(planned))), "a shard is neither done nor named"
        assert not done.keys() & undone.keys()
        assert done == Counter(self.computed.keys()), "a shard counts as done that was not committed once"
        assert all(undone.values()), "a shard is undone without a reason"
        for shard, rows in self.computed.items():
            innocent = set(range(IMAGES)) - self.quarantined[shard]
            assert rows == innocent, f"rows of shard {shard} are lost: {innocent - rows}"


ALL_FAULTS = (
    "crash", "crash_in_write", "infrastructure", "hang", "failed", "start_failed", "start_hang", "start_died", "start_lost", "wait", "capacity", "zombie",
)  # fmt: skip
FAULTS = st.tuples(st.sampled_from(("none",) * 10 + ALL_FAULTS), st.integers(0, 7))
KILLERS = st.sets(st.tuples(st.integers(0, 3), st.integers(0, IMAGES - 1)), max_size=3)


def calm_down(world: World) -> None:
    """No more random faults (killers stay): the run must end by itself."""
    if not world.policy.ended:
        world.offer(2)
    for _ in range(2000):
        if world.policy.ended:
            break
        for worker in world.starting[:]:
            if not world.policy.ended:
                world.start(worker, "none")
        for worker in sorted(world.working):
            if worker in world.working and not world.policy.ended:
                world.step(worker, "none")
        if not world.policy.ended:
            world.tick(1.0)


def run_through(
    shards: int, killers: set[tuple[int, int]], faults: list[tuple[str, int]], retries: int, overlap: bool
) -> None:
    """Some faults, then calm, then the invariants."""
    world = World(shards, killers, shard_retries=retries, overlap=overlap)
    world.offer(2)
    for fault, choice in faults:
        if world.policy.ended:
            break
        world.happen(fault, choice)
        world.tick(1.0)
    calm_down(world)
    world.check()
    assert set(world.policy.done) | set(world.policy.undone) == set(range(shards))
    assert world.aborted or world.finished


@settings(max_examples=500, deadline=None)
@given(
    shards=st.integers(1, 4),
    killers=KILLERS,
    faults=st.lists(FAULTS, max_size=150),
    retries=st.integers(0, 12),
    overlap=st.booleans(),
)
def test_random_faults(shards, killers, faults, retries, overlap):
    run_through(shards, killers, faults, retries, overlap)


@settings(max_examples=200, deadline=None)
@given(
    killers=KILLERS,
    faults=st.lists(st.tuples(st.sampled_from(("none", *ALL_FAULTS[:9])), st.integers(0, 7)), min_size=1, max_size=6),
    retries=st.integers(0, 3),
    overlap=st.booleans(),
)
def test_the_loop_ends_though_the_faults_never_do(killers, faults, retries, overlap):
    """The same faults over and over, without calm in between."""
    world = World(3, killers, shard_retries=retries, overlap=overlap)
    world.offer(2)
    for turn in range(2000):
        if world.policy.ended:
            break
        world.happen(*faults[turn % len(faults)])
        world.tick(5.0)
    world.check()


@settings(max_examples=60, deadline=None)
@given(
    killers=st.sets(st.tuples(st.integers(0, 2), st.integers(0, IMAGES - 1)), max_size=12),
    retries=st.integers(3, 10),
    overlap=st.booleans(),
)
def test_exactly_the_killers_are_quarantined(killers, retries, overlap):
    """Without other faults, whatever the killers' number and neighbourhood, every shard is committed."""
    world = World(3, killers, shard_retries=retries, overlap=overlap)
    world.offer(2)
    calm_down(world)
    world.check()
    result = {(shard, image) for shard, images in world.quarantined.items() for image in images}
    assert result == killers
    assert sorted(world.policy.done) == [0, 1, 2]


def two_suffice(self, alive):
    """The prototype's first error."""
    self._streaks = {image: self._streaks.get(image, 0) + 1 for image in alive}
    return tuple(image for image, streak in self._streaks.items() if streak >= 2)


def never_forget(self, alive):
    """The prototype's second error: deaths count that do not follow each other."""
    self._streaks |= {image: self._streaks.get(image, 0) + 1 for image in alive}
    return tuple(image for image in alive if self._streaks[image] >= 3)


def deaf_to_writes(react):
    """The prototype's third error: a death during the write blames the last image."""
    return lambda self, worker, event, now: [] if isinstance(event, Writing) else react(self, worker, event, now)


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (Blame, "death", two_suffice),
        (Blame, "death", never_forget),
        (Policy, "_react", deaf_to_writes(Policy._react)),
        (Policy, "_requeue_unblamed", lambda self, task, text: []),
    ],
    ids=["two deaths suffice", "deaths need not be consecutive", "writes blame", "shards of lost nodes are dropped"],
)
def test_a_wrong_policy_is_caught(owner, name, wrong, monkeypatch):
    """The test above can fail: it finds each error of the prototype."""
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(AssertionError):
        search(run_through)


def search(check) -> None:
    """Let hypothesis look for any counterexample, always the same way."""
    looking = settings(
        max_examples=600,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate],
    )
    deaths = st.tuples(st.sampled_from(("none",) * 2 + ("crash", "crash_in_write", "infrastructure")), st.just(0))
    looking(
        given(
            shards=st.just(1),
            killers=st.just(set()),
            faults=st.lists(deaths, min_size=60, max_size=120),
            retries=st.just(12),
            overlap=st.just(False),
        )(check)
    )()
