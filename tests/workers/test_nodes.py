"""Several nodes, on one machine: GPUs that do not exist are shared out, nodes are lost, freeze and come, local paths are refused."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from heatlas.errors import UsageError
from heatlas.workers.events import ShardFinished, ShardProgress, WorkerLost, WorkersChanged
from heatlas.workers.ray import cluster as cluster_module
from heatlas.workers.ray.supervisor import supervise

from ..support.fake_engine import NoReader, PickleSink, build_fake, fake_spec, make_shards

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def head(no_ray: None):
    """A cluster whose head offers nothing, with this process connected to it."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    # A node that is gone is noticed soon; one that is silent has as long as ever.
    quick = {"health_check_period_ms": 300, "health_check_initial_delay_ms": 0}
    head_node = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head_node)
    ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def nodes(head, monkeypatch):
    """Adds nodes; they are gone again after the test, and so are those that froze."""
    import ray

    monkeypatch.setattr(cluster_module, "REFRESH_SECONDS", 0.5)
    yield lambda **offers: head.add_node(**offers)
    for node in list(head.worker_nodes):
        head.remove_node(node, allow_graceful=False)
    assert wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 1), "a node of the test outlived it"
    assert wait_until(lambda: not ray.cluster_resources().get("CPU"))


@dataclass
class Place:
    """What one worker said of itself."""

    node: str
    pid: int
    gpus: str


def places(folder: Path) -> list[Place]:
    """Of all workers so far, the oldest first."""
    files = sorted(folder.glob("*_*_*"), key=lambda path: path.stat().st_mtime_ns)
    parts = [path.name.split("_") for path in files]
    return [Place(node, int(pid), gpus) for node, pid, gpus in parts]


def by_id(cluster, node_id: str):
    """The node of that id, as the cluster's own object."""
    import ray

    [socket] = [node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == node_id]
    [results] = [node for node in cluster.worker_nodes if node.raylet_socket_name == socket]
    return results


def explain(folder: Path, uris: list[str], size: int, **options):
    """Run the fake engine on the cluster; gives the outcome, the events and the status of every sample."""
    events, shards, samples = [], *make_shards([f"push:where={folder},{uri}" for uri in uris], size)
    told = options.pop("on_event", lambda event: None)
    sink = PickleSink(folder)
    outcome = supervise(
        shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), sink,
        on_event=lambda event: (events.append(event), told(event)), build=build_fake, **options,
    )  # fmt: skip
    return outcome, events, {row.sample.id: row.status for shard in shards for row in sink.rows(shard.index)}


@pytest.mark.soak
def test_every_worker_is_pinned_to_a_gpu_of_its_node(nodes, tmp_path):
    for _ in range(2):
        nodes(num_cpus=2, num_gpus=2)
    outcome, events, _ = explain(tmp_path, ["push:sleep=1"] * 12, 1, workers="auto")
    assert outcome.statuses == {"ok": 12}
    assert max(event.ready for event in events if isinstance(event, WorkersChanged)) == 4
    result = places(tmp_path)
    assert len({place.pid for place in result}) == 4
    assert sorted(place.gpus for place in result) == ["0", "0", "1", "1"]
    assert len({(place.node, place.gpus) for place in result}) == 4


@pytest.mark.soak
def test_lost_node_blames_nobody_and_a_new_node_is_used(head, nodes, tmp_path):
    nodes(num_cpus=1)

    def lose_it(event):
        if isinstance(event, ShardProgress) and len(places(tmp_path)) == 1 and not lost_nodes:
            victim = places(tmp_path)[0]
            lost_nodes.append(victim.node)
            head.remove_node(by_id(head, victim.node), allow_graceful=False)
            with suppress(
                ProcessLookupError
            ):  # it may outlive its raylet by seconds, as no process of a lost machine does
                os.kill(victim.pid, signal.SIGKILL)
            nodes(num_cpus=1)

    lost_nodes: list[str] = []
    outcome, events, statuses = explain(
        tmp_path, ["", "push:sleep=4", ""], 3, workers=1, image_timeout=60, on_event=lose_it
    )
    assert [event.kind for event in events if isinstance(event, WorkerLost)] == ["infrastructure"]
    assert outcome.quarantined == []
    assert statuses == {"s0": "ok", "s1": "ok", "s2": "ok"}
    assert places(tmp_path)[-1].node != lost_nodes[0]


@pytest.mark.soak
def test_frozen_node_is_noticed_by_the_watchdog(head, nodes, tmp_path):
    nodes(num_cpus=1)
    nodes(num_cpus=1)
    frozen: list[int] = []

    def freeze(event):
        if isinstance(event, ShardProgress) and places(tmp_path) and not frozen:
            place = places(tmp_path)[0]
            [raylet] = by_id(head, place.node).all_processes["raylet"]
            frozen.extend([place.pid, raylet.process.pid])
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)

    outcome, events, statuses = explain(
        tmp_path, ["", "push:sleep=1", ""], 3, workers=1, image_timeout=4, on_event=freeze
    )
    lost = [event for event in events if isinstance(event, WorkerLost)]
    assert [event.kind for event in lost] == ["timeout"]
    assert lost[0].text == "no progress for 4 s"
    assert outcome.quarantined == []
    assert statuses == {"s0": "ok", "s1": "ok", "s2": "ok"}
    first, last = places(tmp_path)[0], places(tmp_path)[-1]
    assert first.node != last.node
    assert wait_until(lambda: not Path(f"/proc/{first.pid}").exists()), "the stopped worker still holds its GPU"


@pytest.mark.soak
def test_a_node_added_mid_run_is_used(nodes, tmp_path):
    nodes(num_cpus=1)
    added: list[str] = []

    def add(event):
        if isinstance(event, ShardFinished) and not added:
            added.append("one more")
            nodes(num_cpus=1)

    outcome, _, _ = explain(tmp_path, ["push:sleep=0.7"] * 40, 2, workers="auto", on_event=add)
    assert outcome.statuses == {"ok": 40}
    assert len({place.node for place in places(tmp_path)}) == 2


def test_local_paths_are_refused_on_several_nodes_unless_shared(nodes, tmp_path):
    nodes(num_cpus=1)
    nodes(num_cpus=1)
    text = r"^the cluster has 2 nodes but '/data' is local to one; use a shared location such as s3://\.\.\., or set shared_fs"
    with pytest.raises(UsageError, match=text):
        explain(tmp_path, [""], 1, workers=1, local_paths=["/data"])
    assert not list(tmp_path.iterdir())
    outcome, _, _ = explain(tmp_path, [""], 1, workers=1, local_paths=["/data"], shared_fs=True)
    assert outcome.rows == 1


def test_local_paths_are_refused_when_a_second_node_comes(nodes, tmp_path):
    """One node was fine; on a second one a worker would write to another disk."""
    nodes(num_cpus=1)

    def add(event):
        if isinstance(event, ShardFinished) and event.shard == 0:
            nodes(num_cpus=1)

    with pytest.raises(UsageError, match="the cluster has 2 nodes"):
        explain(tmp_path, ["push:sleep=0.5"] * 20, 1, workers=1, local_paths=["/data"], on_event=add)


def wait_until(condition, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False
