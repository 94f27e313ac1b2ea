"""The commit protocol under every order of requests that hypothesis finds: never lost, never twice, never foreign, never mixed.

Drivers, late workers, compactions, retries, appends and readers share one simulated object store (`tests/support/simulated_storage.py`);
requests are delayed, reordered, fail before or after their effect, and processes are killed between any two of them. The code is the real one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from heatlas.errors import HeatlasError, ShardsUndoneError
from heatlas.pipeline.explain import explain
from heatlas.pipeline.storage.atomic_write import put
from heatlas.pipeline.store import compact, merge_parts, parquet_sink, rewrite_shard, superseded
from heatlas.pipeline.store.committed_shards import row_totals
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from tenacity import wait_none

from ..support.simulated_protocol import KINDS, OUT, Simulation
from ..support.simulated_storage import LOCKS, SimulatedStore, exchange_locked, wait_for_listings, withdraw_locked

FAULTS = ("none", "none", "none", "none", "before", "after", "killed")
MOST_PROCESSES = 5


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """Pauses take no time; a retry beside a compaction has the locks of a local folder, without which docs/store.md advises against it."""
    monkeypatch.setattr("heatlas.pipeline.storage.backoff.WAIT", wait_none())
    monkeypatch.setattr(rewrite_shard, "exchange", exchange_locked)
    monkeypatch.setattr(superseded, "withdraw", withdraw_locked)


class Protocol(RuleBasedStateMachine):
    """Hypothesis starts processes and chooses whose request comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Simulation()
        compact.time = SimpleNamespace(sleep=lambda _: wait_for_listings(lambda: self.world.processes))
        self.world.start("driver")

    @rule(kind=st.sampled_from(KINDS))
    def start(self, kind: str) -> None:
        if len(self.world.running) < MOST_PROCESSES:
            self.world.start(kind)

    @rule(number=st.integers(0, MOST_PROCESSES - 1), fault=st.sampled_from(FAULTS), steps=st.integers(1, 12))
    def go_on(self, number: int, fault: str, steps: int) -> None:
        for _ in range(steps - 1):
            self.world.advance(number)
        self.world.advance(number, fault)

    def teardown(self) -> None:
        try:
            self.world.check_at_end()
        finally:
            self.world.end()


def explore(examples: int, steps: int) -> None:
    import time

    try:
        run_state_machine_as_test(
            Protocol,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=examples < 100,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
    finally:
        compact.time = time


def test_no_order_of_requests_loses_doubles_or_mixes_rows():
    explore(12, 25)


@pytest.mark.soak
def test_no_order_of_requests_loses_doubles_or_mixes_rows_for_long():
    explore(1500, 60)


def overwrites(monkeypatch):
    """A commit that does not look whether the shard is there."""
    monkeypatch.setattr(parquet_sink, "put_if_absent", lambda uri, data: put(uri, data) is None)


def counts_foreign_parts(monkeypatch):
    """Readers that do not compare where a part comes from."""
    for module in (merge_parts, superseded):
        if hasattr(module, "foreign"):
            monkeypatch.setattr(module, "foreign", lambda *_: None)
    monkeypatch.setattr("heatlas.pipeline.store.footer_reader.foreign", lambda *_: None)


def removes_before_it_puts(monkeypatch):
    """A compaction that deletes the parts before the merged file is there."""
    written = merge_parts.write_merged

    def wrong(out, files):
        for file in files:
            superseded.withdraw(file.uri(out), lambda data: None)
        return written(out, files)

    monkeypatch.setattr(compact, "write_merged", wrong)


BROKEN = {
    overwrites: KINDS,
    counts_foreign_parts: ("driver", "foreign worker"),
    removes_before_it_puts: KINDS,
}
"""Protocols that break a promise, each with the processes among which it does in some random history; further down are those that need
a certain one."""


def wander(seed: int, monkeypatch, kinds: Sequence[str] = KINDS) -> None:
    """One random history."""
    draw, world = random.Random(seed), Simulation()
    monkeypatch.setattr(compact, "time", SimpleNamespace(sleep=lambda _: wait_for_listings(lambda: world.processes)))
    try:
        world.start("driver")
        for _ in range(draw.randint(20, 120)):
            if draw.random() < (0.08 if kinds is KINDS else 0.25) and len(world.running) < MOST_PROCESSES:
                world.start(draw.choice(kinds))
            for _ in range(draw.randint(1, 10)):
                world.advance(draw.randrange(MOST_PROCESSES))
            if draw.random() < 0.1:
                world.advance(draw.randrange(MOST_PROCESSES), draw.choice(FAULTS))
        world.check_at_end()
    finally:
        world.end()


def first_failure(seeds, monkeypatch, kinds: Sequence[str]) -> int | None:
    for seed in seeds:
        try:
            wander(seed, monkeypatch, kinds)
        except (AssertionError, HeatlasError) as error:
            if " failed: " in str(error):  # the broken protocol itself does not run
                raise
            return seed
    return None


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_protocol_is_caught(broken, monkeypatch):
    broken(monkeypatch)
    assert first_failure(range(60), monkeypatch, BROKEN[broken]) is not None


def test_the_same_histories_pass_with_the_protocol_as_it_is(monkeypatch):
    for seed in range(6):
        wander(seed, monkeypatch)


def repair_beside_compaction(monkeypatch) -> None:
    """A retry looks for a part before the compaction puts the merged file, and writes it before the compaction removes it.

    Random histories hardly ever meet this: all shards must be done, and one of the retry's few writes must fall into that moment.
    """
    world = Simulation()
    monkeypatch.setattr(compact, "time", SimpleNamespace(sleep=lambda _: wait_for_listings(lambda: world.processes)))
    try:
        world.start("driver")
        world.settle()
        world.start("retry")
        retry = world.running[0]
        while not LOCKS:  # it has chosen the file that it is about to write
            assert not retry.done, retry.error
            retry.advance()
        world.start("compact")
        compaction = world.running[1]
        merged = f"{OUT[6:]}/maps/parts-000000-000003.parquet"
        while merged not in SimulatedStore.objects:
            assert not compaction.done, compaction.error
            compaction.advance()
        while not retry.done:
            retry.advance()
        assert "img-02" in world.repaired
        assert not compaction.done
        world.check_at_end()
    finally:
        world.end()


def test_a_row_repaired_beside_a_compaction_stays_repaired(monkeypatch):
    repair_beside_compaction(monkeypatch)


def test_a_compaction_that_forgets_repaired_rows_is_caught(monkeypatch):
    """It removes parts without a last look."""
    monkeypatch.setattr(superseded, "migrate_repaired_rows", lambda *_: [])
    with pytest.raises(AssertionError, match=r"img-02 is \('read_error'"):
        repair_beside_compaction(monkeypatch)


def kill_while_committing() -> None:
    """A driver is killed at the moment at which its first part appears."""
    world = Simulation()
    try:
        world.start("driver")
        while not [name for name in SimulatedStore.objects if "/maps/part" in name]:
            world.advance(0)
        world.advance(0, "killed")
        world.check_at_end()
    finally:
        world.end()


def test_a_commit_that_is_cut_short_leaves_a_whole_part_or_none():
    kill_while_committing()


def test_a_commit_in_two_steps_is_caught(monkeypatch):
    def put_halves(uri, data):
        put(uri, data[: len(data) // 2])
        put(uri, data)
        return True

    monkeypatch.setattr(parquet_sink, "put_if_absent", put_halves)
    with pytest.raises(AssertionError, match="the last driver ended with StorageError"):
        kill_while_committing()


def append_beside_a_conclusion() -> None:
    """A driver has done all its shards; before it says so another command appends to the plan, and is killed."""
    world = Simulation()
    try:
        world.start("driver")
        driver = world.running[0]
        while len([name for name in SimulatedStore.objects if "/maps/part" in name]) < len(world.shards):
            driver.advance()
        world.start("append")
        append = world.running[1]
        while f"{OUT[6:]}/_plan/append-000001.json" not in SimulatedStore.objects:
            assert not append.done, append.error
            append.advance()
        append.advance("killed")
        while not driver.done:
            driver.advance()
        world.check_always()
        world.check_at_end()
    finally:
        world.end()


def test_a_conclusion_beside_an_append_does_not_speak_of_what_is_not_there():
    append_beside_a_conclusion()


def test_a_conclusion_that_does_not_look_is_caught(monkeypatch):
    """It writes what the plan wants, whatever is stored."""

    def totals(out, shards, listing):
        return {**row_totals(out), "samples": sum(map(len, shards))}

    monkeypatch.setattr(explain, "check_complete", totals)
    with pytest.raises(ShardsUndoneError, match="2 of 6 shards are not done"):
        append_beside_a_conclusion()
