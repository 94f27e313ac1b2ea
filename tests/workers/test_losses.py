"""A node lost under its actor, and a driver killed: nothing is lost, nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_engine
import pytest
from fake_engine import NoReader, PickleSink, build_fake, fake_spec, make_shards
from heatlas.workers.events import ShardProgress, WorkerLost
from heatlas.workers.supervisor import supervise

DRIVER = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from fake_engine import *
from heatlas.workers.supervisor import supervise
uris = ["push:pid={out}/pid", "push:hang"]
shards, samples = make_shards(uris, 2)
supervise(shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), PickleSink(Path({out!r})), workers=1, build=build_fake)
"""


@pytest.fixture
def cluster():
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_lost_node_blames_nobody_and_a_new_node_is_used(cluster, tmp_path):
    events, victims = [], list(cluster.worker_nodes)
    shards, samples = make_shards(["", "push:sleep=3", ""], 3)

    def lose_it(event):
        events.append(event)
        if isinstance(event, ShardProgress) and victims:
            cluster.add_node(num_cpus=1)
            cluster.remove_node(victims.pop(), allow_graceful=False)

    outcome = supervise(
        shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), PickleSink(tmp_path),
        workers=1, on_event=lose_it, build=build_fake, image_timeout=60,
    )  # fmt: skip
    lost = [event.kind for event in events if isinstance(event, WorkerLost)]
    assert lost == ["infrastructure"]
    assert outcome.quarantined == []
    assert outcome.statuses == {"ok": 3}


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the process in /proc")
def test_workers_exit_with_a_killed_driver(tmp_path):
    code = DRIVER.format(folder=str(Path(fake_engine.__file__).parent), out=str(tmp_path))
    driver = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        pid = wait_for_pid(tmp_path / "pid", driver)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(30)
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists()), "the worker outlived its driver"
    assert not list(tmp_path.glob("part-*"))


def wait_for_pid(path: Path, driver: subprocess.Popen) -> int:
    assert wait_until(lambda: (path.exists() and path.read_text()) or driver.poll() is not None)
    return int(path.read_text())


def wait_until(condition, seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False
