"""Storage that is gone: nothing is computed twice, the run ends with its name, or waits if asked to."""

from __future__ import annotations

import errno
import signal
import threading

import pytest
from heatlas.errors import StorageError
from heatlas.pipeline.storage import backoff
from heatlas.pipeline.storage.backoff import with_retries
from heatlas.workers.events import ShardFailed, WorkerDied, WorkerNote, Writing
from heatlas.workers.in_process import explain_in_process
from heatlas.workers.policy import storage_outage
from heatlas.workers.policy.orders import Abort, Dispatch, Finish, Told
from heatlas.workers.worker.shard_worker import ShardWorker
from tenacity import wait_none

from ..support.fake_engine import FakeEngine, NoReader, PickleSink, fake_spec, make_shards
from .test_policy import Desk, done


class FailingPuts:
    """A sink whose first puts fail."""

    def __init__(self, folder, times: int, outage="passing"):
        self.sink, self.left, self.outage, self.tries = PickleSink(folder), times, outage, 0

    def commit(self, shard, rows):
        self.tries += 1
        if self.left:
            self.left -= 1
            error = StorageError("cannot write s3://bucket/run: the server is down")
            error.outage = self.outage
            raise error
        return self.sink.commit(shard, rows)


class Counting(FakeEngine):
    """Counts the images that it prepares."""

    prepared = 0

    def prepare(self, sample, reader):
        Counting.prepared += 1
        return super().prepare(sample, reader)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(storage_outage, "PAUSE_SECONDS", 0.0)
    Counting.prepared = 0


def run(sink, images=4, on_event=lambda event: None, **options):
    shards, samples = make_shards([""] * images, 2)
    return explain_in_process(
        shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), sink,
        build=lambda spec, reader: Counting(fake_spec(), None), on_event=on_event, **options,
    )  # fmt: skip


@pytest.mark.parametrize("overlap", [False, True])
def test_a_passing_failure_costs_a_put_and_no_image(tmp_path, overlap):
    sink = FailingPuts(tmp_path, 4)
    outcome = run(sink, shard_retries=0, overlap=overlap)
    assert (sorted(outcome.done), outcome.undone, sink.tries, Counting.prepared) == ([0, 1], [], 6, 4)
    assert [row.sample.id for row in sink.sink.rows(0)] == ["s0", "s1"]


@pytest.mark.parametrize(("overlap", "tries", "prepared"), [(False, 5, 2), (True, 6, 4)])
def test_five_failures_of_a_shard_in_a_row_end_the_run_with_the_name(tmp_path, overlap, tries, prepared):
    """A shard that is in work meanwhile is computed and fails as well; no third is begun."""
    sink = FailingPuts(tmp_path, 1000)
    with pytest.raises(StorageError, match=r"the storage is gone: cannot write s3://bucket/run: .* \(--wait-for-space"):
        run(sink, images=6, overlap=overlap)
    assert (sink.tries, Counting.prepared) == (tries, prepared)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_full_disk_ends_the_run_at_once(tmp_path, overlap):
    sink = FailingPuts(tmp_path, 1000, "permanent")
    with pytest.raises(StorageError, match="the storage is gone"):
        run(sink, images=6, overlap=overlap)
    assert sink.tries == 1
    assert 2 <= Counting.prepared <= (4 if overlap else 2)  # the second shard was begun, and no third


def test_it_is_waited_for_on_request_and_said_once(tmp_path):
    notes = []
    sink = FailingPuts(tmp_path, 30, "permanent")
    outcome = run(
        sink, wait_for_space=True, on_event=lambda event: notes.append(event) if isinstance(event, WorkerNote) else None
    )
    assert (sorted(outcome.done), sink.tries, Counting.prepared) == ([0, 1], 32, 4)
    assert [note.text for note in notes] == [
        "waiting for the storage, with the computed rows kept: cannot write s3://bucket/run: the server is down"
    ]


def test_ctrl_c_ends_a_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_outage, "PAUSE_SECONDS", 5.0)
    assert threading.current_thread() is threading.main_thread()

    def press(event):
        if isinstance(event, WorkerNote):
            signal.raise_signal(signal.SIGINT)

    outcome = run(FailingPuts(tmp_path, 1000), wait_for_space=True, on_event=press)
    assert outcome.interrupted
    assert [shard for shard, _ in outcome.undone] == [0, 1]


def test_the_worker_keeps_the_rows(tmp_path):
    [shard], samples = make_shards([""] * 3, 3)
    worker = ShardWorker(
        fake_spec(), NoReader(), FailingPuts(tmp_path, 1), lambda spec, reader: Counting(fake_spec(), None)
    )
    first, again = list(worker.run(shard, samples[0])), list(worker.run(shard, samples[0]))
    assert first[-1] == ShardFailed("storage", "cannot write s3://bucket/run: the server is down")
    assert again[0] == Writing()
    assert (again[-1].rows, Counting.prepared) == (3, 3)


FAILED = ShardFailed("storage", "down")


def test_only_the_worker_with_the_rows_gets_the_shard_again(monkeypatch):
    monkeypatch.setattr(storage_outage, "PAUSE_SECONDS", 1.0)
    desk = Desk(shards=2, workers=2)
    assert desk.say(0, FAILED) == []
    assert desk.say(1, done(0, 10)) == []  # idle, and leaves the shard alone
    assert desk.wait(0.5) == []
    assert desk.wait(1) == [Dispatch(0, 0, frozenset(), careful=False)]
    assert desk.say(0, done(0, 10)) == [Finish()]


def test_a_dead_worker_keeps_nothing(monkeypatch):
    monkeypatch.setattr(storage_outage, "PAUSE_SECONDS", 1.0)
    desk = Desk(shards=2, workers=2)
    desk.say(0, FAILED)
    desk.say(1, done(0, 10))
    desk.say(0, WorkerDied("crash", "SIGKILL"))
    desk.wait(2)
    assert (desk.last.worker, desk.last.shard) == (1, 0)


def test_failures_in_a_row_are_those_since_the_last_success():
    desk = Desk(shards=3, shard_retries=0)
    for _ in range(2):
        for _ in range(4):
            assert not [order for order in desk.say(0, FAILED) if isinstance(order, Abort)]
            desk.wait(1)
        desk.say(0, done(0, 10))
    for _ in range(4):
        desk.say(0, FAILED)
        desk.wait(1)
    assert [order.cause for order in desk.say(0, FAILED) if isinstance(order, Abort)] == ["storage"]
    assert desk.policy.undone.keys() == {2}


def test_a_policy_that_waits_says_so_once():
    desk = Desk(wait_for_space=True)
    for _ in range(20):
        desk.say(0, ShardFailed("storage", "full", permanent=True))
        desk.wait(60)
    assert len(desk.of(Told)) == 1
    assert not desk.of(Abort)
    assert Finish() in desk.say(0, done(0, 10))


@pytest.mark.parametrize(
    ("error", "outage", "tries"),
    [
        (OSError(errno.ENOSPC, "full"), "permanent", 2), (OSError(errno.EDQUOT, "quota"), "permanent", 2),
        (OSError(errno.EROFS, "read-only"), "permanent", 1), (PermissionError(errno.EACCES, "no"), "permanent", 1),
        (FileNotFoundError("no bucket"), "permanent", 1), (OSError(errno.EIO, "down"), "passing", 2), (TimeoutError(), "passing", 2),
    ],
)  # fmt: skip
def test_what_more_puts_would_not_help(monkeypatch, error, outage, tries):
    monkeypatch.setattr(backoff, "WAIT", wait_none())
    monkeypatch.setattr(backoff, "ATTEMPTS", 2)
    calls = []

    def put():
        calls.append(1)
        raise error

    with pytest.raises(StorageError) as caught:
        with_retries(put, "write x")
    assert (caught.value.outage, len(calls)) == (outage, tries)
