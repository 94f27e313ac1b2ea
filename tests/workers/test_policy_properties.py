"""Random faults against the policy: every shard ends committed or named, nobody innocent is quarantined, the loop ends."""

from __future__ import annotations

from collections import Counter, defaultdict

from heatlas.workers.policy import Limits, Policy
from heatlas.workers.shards import Shard
from heatlas.workers.signals import (
    Abort,
    Alive,
    Capacity,
    Died,
    Dispatch,
    Done,
    Failed,
    Finish,
    Kill,
    Lost,
    Quarantine,
    Ready,
    Spawn,
    StartFailed,
    WriteBegun,
)
from hypothesis import given, settings
from hypothesis import strategies as st

IMAGES = 4


class World:
    """A cluster that does what the policy orders, badly: the draws decide which fault comes next."""

    def __init__(self, shards: int, killers: set[tuple[int, int]], limits: Limits):
        self.policy = Policy([Shard(i, i * IMAGES, (i + 1) * IMAGES) for i in range(shards)], limits)
        self.killers = killers
        self.now = 0.0
        self.starting: list[int] = []
        self.working: dict[int, Dispatch] = {}
        self.position: dict[int, int] = {}
        self.hung: set[int] = set()
        self.quarantined: dict[int, set[int]] = defaultdict(set)
        self.streaks: dict[int, Counter[int]] = defaultdict(Counter)
        self.committed: Counter[int] = Counter()
        self.aborted = False
        self.finished = False

    def say(self, signal):
        self.obey(self.policy.handle(signal, self.now))

    def tick(self, seconds: float):
        self.now += seconds
        self.obey(self.policy.tick(self.now))

    def obey(self, orders):
        for order in orders:
            match order:
                case Spawn():
                    self.starting.append(order.worker)
                case Dispatch():
                    assert order.shard not in {one.shard for one in self.working.values()}, "a shard is in flight twice"
                    assert order.worker not in self.working, "a worker has two shards"
                    assert not self.committed[order.shard], "a committed shard is done again"
                    assert order.quarantine == self.quarantined[order.shard]
                    self.working[order.worker], self.position[order.worker] = order, -1
                case Kill():
                    self.working.pop(order.worker, None)
                    self.hung.discard(order.worker)
                case Lost() if order.shard is not None and order.cause in ("crash", "timeout"):
                    row = self.streaks[order.shard]
                    self.streaks[order.shard] = Counter({image: row[image] + 1 for image in order.alive})
                case Quarantine():
                    assert self.streaks[order.shard].pop(order.image) >= 3, "quarantined without three deaths in a row"
                    self.quarantined[order.shard].add(order.image)
                case Abort():
                    self.aborted = True
                case Finish():
                    self.finished = True

    def step(self, worker: int, fault: str):
        """One thing happens to a working worker."""
        order = self.working[worker]
        if worker in self.hung:
            return
        if fault == "hang":
            self.hung.add(worker)
        elif fault in ("crash", "infrastructure"):
            del self.working[worker]
            self.say(Died(worker, fault, fault))
        elif fault == "failed":
            del self.working[worker]
            self.say(Failed(worker, "storage"))
        else:
            self.advance(worker, order)

    def advance(self, worker: int, order: Dispatch):
        position = self.position[worker] = self.position[worker] + 1
        if position < IMAGES:
            if position in order.quarantine:
                return
            alive = (position,) if order.careful else tuple({max(position - 1, 0), position} - order.quarantine)
            self.say(Alive(worker, alive))
            if (order.shard, position) in self.killers:
                del self.working[worker]
                self.say(Died(worker, "crash", "killer"))
        elif position == IMAGES:
            self.say(WriteBegun(worker))
        else:
            del self.working[worker]
            self.committed[order.shard] += 1
            self.say(Done(worker, 0, IMAGES))


FAULTS = st.sampled_from(["none"] * 6 + ["crash", "infrastructure", "hang", "failed", "start_failed", "wait", "capacity"])


@settings(max_examples=150, deadline=None)
@given(
    shards=st.integers(1, 4),
    killers=st.sets(st.tuples(st.integers(0, 3), st.integers(0, IMAGES - 1)), max_size=3),
    faults=st.lists(st.tuples(FAULTS, st.integers(0, 7)), max_size=120),
    retries=st.integers(0, 4),
)
def test_random_faults(shards, killers, faults, retries):
    world = World(shards, killers, Limits(image_timeout=30, shard_retries=retries, infrastructure_retries=5))
    world.say(Capacity(2))
    for fault, choice in faults:
        if world.policy.ended:
            break
        if fault == "capacity":
            world.say(Capacity(choice % 4))
        elif fault == "wait":
            world.tick(choice * 5.0)
        elif world.starting and (choice % 2 or not world.working):
            worker = world.starting.pop(0)
            world.say(StartFailed(worker, "no weights") if fault == "start_failed" else Ready(worker))
        elif world.working:
            world.step(sorted(world.working)[choice % len(world.working)], fault)
    calm_down(world)
    outcome = set(world.policy.done) | set(world.policy.undone)
    assert outcome == set(range(shards))
    assert not set(world.policy.done) & set(world.policy.undone)
    assert Counter(world.policy.done) == world.committed
    assert all(world.policy.undone.values()), "a shard is undone without a reason"


def calm_down(world: World) -> None:
    """No more random faults (killers stay): the run must end by itself."""
    if not world.policy.ended:
        world.say(Capacity(2))
    for _ in range(2000):
        if world.policy.ended:
            break
        for worker in world.starting[:]:
            world.starting.remove(worker)
            world.say(Ready(worker))
        for worker in sorted(world.working):
            if worker in world.working and not world.policy.ended:
                world.step(worker, "none")
        if not world.policy.ended:
            world.tick(1.0)
    assert world.policy.ended
    assert world.aborted or world.finished


@settings(max_examples=60, deadline=None)
@given(
    killers=st.sets(st.tuples(st.integers(0, 2), st.integers(0, IMAGES - 1)), max_size=12),
    retries=st.integers(3, 10),
)
def test_exactly_the_killers_are_quarantined(killers, retries):
    """Without other faults, whatever the killers' number and neighbourhood, every shard is committed."""
    world = World(3, killers, Limits(image_timeout=30, shard_retries=retries))
    world.say(Capacity(2))
    calm_down(world)
    found = {(shard, image) for shard, images in world.quarantined.items() for image in images}
    assert found == killers
    assert sorted(world.policy.done) == [0, 1, 2]
