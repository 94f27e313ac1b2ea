"""The supervisor over a real Ray with an engine that misbehaves on order."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from heatlas.errors import TooManyErrorsError, UsageError, WorkerStartError
from heatlas.workers.events import (
    ImageQuarantined,
    RunStopping,
    ShardFinished,
    ShardGivenUp,
    ShardProgress,
    ShardStarted,
    WorkerLost,
    WorkerNote,
    WorkersChanged,
)
from heatlas.workers.ray import cluster
from heatlas.workers.ray.actors import python_path, ray_session
from heatlas.workers.ray.supervisor import supervise

from ..support.fake_engine import (
    FailingSink,
    NoReader,
    NotedEngine,
    PickleSink,
    build_fake,
    failing_build,
    fake_spec,
    hanging_build,
    make_shards,
)


class Run:
    """A supervised run with the fake engine; `events` keeps what was told."""

    def __init__(self, folder, uris, size, **options):
        self.sink = PickleSink(folder)
        self.events = []
        self.shards, samples = make_shards(uris, size)
        sink = options.pop("sink", self.sink)
        self.listener = options.pop("listener", lambda event: None)
        options = {"build": build_fake, "workers": 1, **options}
        spec = options.pop("spec", fake_spec())
        self.call = lambda: supervise(
            self.shards, lambda shard: samples[shard.index], spec, NoReader(), sink, on_event=self.hear, **options
        )

    def hear(self, event):
        self.events.append(event)
        self.listener(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def statuses(self):
        return {row.sample.id: row.status for shard in self.shards for row in self.sink.rows(shard.index)}


@pytest.mark.parametrize("workers", [1, 3])
def test_calm_run(two_gpus, tmp_path, workers):
    run = Run(tmp_path, [""] * 23, 5, workers=workers, spec=fake_spec(device="cpu"))
    outcome = run.call()
    assert sorted(outcome.done) == [0, 1, 2, 3, 4]
    assert outcome.undone == []
    assert outcome.rows == 23
    assert outcome.statuses == {"ok": 23}
    assert outcome.forwards == 230
    sums = [event.done.metric_sums["drop_pct"] for event in run.of(ShardFinished)]
    assert tuple(map(sum, zip(*sums, strict=True))) == (43.0, 23)
    assert set(run.statuses()) == {f"s{number}" for number in range(23)}
    assert len(run.of(ShardFinished)) == len(run.of(ShardStarted)) == 5
    assert max(event.finished for event in run.of(ShardProgress)) >= 1
    assert run.of(WorkersChanged)[-1].ready >= 1


def test_each_worker_sees_one_gpu(two_gpus, tmp_path):
    run = Run(tmp_path, ["push:sleep=0.5"] * 6, 1, workers="auto")
    run.call()
    devices = {row.device for shard in run.shards for row in run.sink.rows(shard.index)}
    assert devices == {"cpu:0", "cpu:1"}


def test_half_a_gpu_each_makes_four_workers(two_gpus, tmp_path):
    run = Run(tmp_path, [""] * 8, 1, workers="auto", gpus_per_worker=0.5)
    run.call()
    assert max(event.ready + event.pending for event in run.of(WorkersChanged)) == 4


@pytest.mark.parametrize("killer", ["decode:segfault", pytest.param("push:abort", marks=pytest.mark.soak)])
def test_a_killer_image_is_quarantined_and_nobody_else(two_gpus, tmp_path, killer):
    run = Run(tmp_path, ["", "", "", killer, "", ""], 6)
    outcome = run.call()
    assert outcome.quarantined == ["s3"]
    assert outcome.deaths == 3
    assert run.statuses() == {f"s{number}": "ok" for number in range(6)} | {"s3": "quarantined"}
    assert [event.sample for event in run.of(ImageQuarantined)] == ["s3"]
    assert [event.careful for event in run.of(ShardStarted)] == [False, True, True, True]
    assert [event.alive for event in run.of(WorkerLost)][1:] == [("s3",), ("s3",)]
    assert "s3" in run.of(WorkerLost)[0].alive


@pytest.mark.parametrize("overlap", [False, True])
def test_a_killed_worker_costs_what_it_has_in_work_and_blames_nobody(two_gpus, tmp_path, overlap):
    """That is one shard, or two where the one before is completed beside it."""
    uris = [f"push:sigkill_once={tmp_path / 'mark'}" if n == 4 else "" for n in range(9)]
    run = Run(tmp_path, uris, 3, overlap=overlap)
    outcome = run.call()
    assert outcome.deaths == 1
    assert outcome.quarantined == []
    started = sorted(event.shard for event in run.of(ShardStarted))
    lost = run.of(WorkerLost)[0]
    again = [shard for shard in (lost.shard, lost.earlier) if shard is not None]
    assert 1 in again
    assert started == sorted([0, 1, 2, *again])
    assert overlap or lost.earlier is None
    assert sorted(outcome.done) == [0, 1, 2]
    assert outcome.statuses == {"ok": 9}


def test_a_broken_device_costs_its_worker_and_no_row(two_gpus, tmp_path):
    """A sticky fault fails every later image of its process, so the process goes; a new one finds the device in order."""
    run = Run(tmp_path, ["", "", f"push:broken_device_once={tmp_path / 'mark'}", "", ""], 5)
    outcome = run.call()
    assert outcome.statuses == {"ok": 5}
    assert outcome.quarantined == []
    assert [event.kind for event in run.of(WorkerLost)] == ["crash"]


@pytest.mark.soak
def test_a_hanging_image_is_killed_and_quarantined(two_gpus, tmp_path):
    run = Run(tmp_path, ["", "push:hang", ""], 3, image_timeout=2)
    outcome = run.call()
    assert run.statuses() == {"s0": "ok", "s1": "quarantined", "s2": "ok"}
    assert {event.kind for event in run.of(WorkerLost)} == {"timeout"}
    assert outcome.deaths == 3


def test_a_stopped_process_is_replaced_too(two_gpus, tmp_path):
    run = Run(tmp_path, ["", f"push:sigstop_once={tmp_path / 'mark'}", ""], 3, image_timeout=2)
    outcome = run.call()
    assert outcome.statuses == {"ok": 3}
    assert [event.kind for event in run.of(WorkerLost)] == ["timeout"]


def test_workers_that_cannot_start_abort_with_the_cause(two_gpus, tmp_path):
    run = Run(tmp_path, [""] * 2, 1, build=failing_build)
    with pytest.raises(
        WorkerStartError, match=r"^3 workers in a row could not start: the weights are missing; look elsewhere$"
    ):
        run.call()


def test_workers_whose_model_hangs_abort_with_the_cause(two_gpus, tmp_path):
    run = Run(tmp_path, [""] * 2, 1, build=hanging_build, start_timeout=0.5)
    with pytest.raises(WorkerStartError, match=r"^3 workers in a row could not start: no model after 0\.5 s$"):
        run.call()
    assert {event.kind for event in run.of(WorkerLost)} == {"start"}


def test_a_shard_over_its_cap_is_named(two_gpus, tmp_path):
    run = Run(tmp_path, [""] * 2, 2, sink=FailingSink(), shard_retries=1)
    outcome = run.call()
    assert outcome.undone == [(0, "2 attempts failed, the last: OSError: the disk is full")]
    assert [event.shard for event in run.of(ShardGivenUp)] == [0]


def test_a_second_driver_was_first(two_gpus, tmp_path):
    run = Run(tmp_path, [""] * 4, 2)
    run.call()
    again = run.call()
    assert again.done == [0, 1]
    assert [event.done.first for event in run.of(ShardFinished)] == [True] * 2 + [False] * 2
    assert again.undone == []


def test_breaker(two_gpus, tmp_path):
    run = Run(tmp_path, ["decode:sample_error"] * 30, 30, max_error_rate=0.5)
    with pytest.raises(TooManyErrorsError, match=r"30 of the last 30 images failed.*'s0': decode_error: not an image"):
        run.call()
    assert not run.sink.path(0).exists()


def test_ctrl_c_finishes_what_is_in_work(two_gpus, tmp_path):
    def press(event):
        if isinstance(event, ShardFinished) and event.shard == 0:
            signal.raise_signal(signal.SIGINT)

    run = Run(tmp_path, ["push:sleep=0.2"] * 8, 2, listener=press)
    outcome = run.call()
    assert outcome.interrupted
    assert len(run.of(RunStopping)) == 1
    assert 1 <= len(outcome.done) <= 2
    assert [shard for shard, _ in outcome.undone] == list(range(len(outcome.done), 4))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_stops_at_once(two_gpus, tmp_path):
    def press(event):
        if isinstance(event, RunStopping) or (isinstance(event, ShardProgress) and not run.of(RunStopping)):
            signal.raise_signal(signal.SIGINT)

    run = Run(tmp_path, ["push:hang"], 1, listener=press)
    outcome = run.call()
    assert outcome.interrupted
    assert [shard for shard, _ in outcome.undone] == [0]


def test_supervise_outside_the_main_thread(two_gpus, tmp_path):
    result = []
    run = Run(tmp_path, [""] * 2, 2)
    thread = threading.Thread(target=lambda: result.append(run.call()))
    thread.start()
    thread.join(60)
    assert result[0].rows == 2


def test_no_actor_stays_behind(two_gpus, tmp_path):
    Run(tmp_path, [""] * 2, 1, workers=2).call()
    pids = [PickleSink(tmp_path).pid(index) for index in range(2)]
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if alive(pid)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_cuda_on_a_cluster_without(monkeypatch, two_gpus):
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    with pytest.raises(UsageError, match="device is 'cuda' but the cluster has no GPU"):
        cluster.Cluster("auto", gpus=1, cpus=1, device="cuda")
    assert cluster.Cluster("auto", gpus=1, cpus=2, device="auto").capacity() == 2


def test_capacity_follows_the_cluster(monkeypatch, two_gpus):
    import ray

    monkeypatch.setattr(cluster, "REFRESH_SECONDS", -1.0)
    seen = cluster.Cluster("auto", gpus=0.5, cpus=1, device="auto")
    assert seen.capacity() == 4
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 32.0, "GPU": 8.0})
    assert seen.capacity() == 16


@pytest.mark.parametrize(
    ("gpus", "nodes", "threads"),
    [
        (1.0, [{"CPU": 48.0, "GPU": 4.0}, {"CPU": 96.0}], 12),  # nodes without GPU do not count
        (1.0, [{"CPU": 48.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 4.0}], 4),  # the scantiest node
        (0.25, [{"CPU": 32.0, "GPU": 1.0}], 8),  # slices of one card
        (1.0, [{"CPU": 256.0, "GPU": 1.0}], 16),
        (1.0, [{"CPU": 1.0, "GPU": 1.0}], 2),
        (1.0, [{"CPU": 64.0}], 2),  # forwards need the CPUs
    ],
)
def test_the_cpus_of_a_node_decode_for_its_gpus(monkeypatch, two_gpus, gpus, nodes, threads):
    import ray

    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    monkeypatch.setattr(ray, "cluster_resources", lambda: total)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    assert cluster.Cluster("auto", gpus=gpus, cpus=1, device="auto").decode_threads == threads


def test_local_paths_on_several_nodes(monkeypatch, two_gpus):
    import ray

    node = {"Alive": True, "Resources": {"CPU": 4.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [node, node, {"Alive": False, "Resources": {"CPU": 1.0}}])
    seen = cluster.Cluster("auto", gpus=1, cpus=1, device="auto")
    seen.refuse_several_nodes([])
    with pytest.raises(UsageError, match="2 nodes but '/data' is local to one; use a shared location"):
        seen.refuse_several_nodes(["/data"])


def test_a_running_ray_is_used_and_left_alone(two_gpus):
    import ray

    with ray_session("local"):
        pass
    assert ray.is_initialized()


def test_python_path_has_what_the_driver_added(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    paths = python_path().split(os.pathsep)
    assert paths[0] == str(tmp_path)
    assert not [path for path in paths if path.endswith("site-packages")]


def test_ray_client_is_refused(two_gpus):
    with (
        pytest.raises(
            UsageError, match=r"'ray://head:10001' is Ray Client's, which cannot stream.*with address 'auto'"
        ),
        ray_session("ray://head:10001"),
    ):
        pass


def test_the_same_note_of_several_workers_is_told_once(two_gpus, tmp_path):
    run = Run(tmp_path, [""] * 4, 1, workers=2, build=NotedEngine)
    run.call()
    assert [event.text for event in run.of(WorkerNote)] == ["slower than asked for"]
