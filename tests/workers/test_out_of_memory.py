"""A worker that eats the machine's memory is killed by Ray's memory monitor; the shard is done again, nobody is blamed for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from heatlas.workers.events import WorkerLost
from heatlas.workers.ray.supervisor import supervise

from ..support.fake_engine import NoReader, PickleSink, build_fake, fake_spec, make_shards

MARGIN = 2 * 2**30
"""Bytes above what is used now at which the monitor kills; the greedy worker takes twice as much."""


def memory() -> dict[str, int]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def limited_by_cgroup() -> bool:
    limit = Path("/sys/fs/cgroup/memory.max")
    return limit.exists() and limit.read_text().strip() != "max"


@pytest.mark.soak  # the monitor counts the memory of the whole machine, with all that other tests take at the same time
@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads the machine's memory from /proc")
@pytest.mark.skipif(limited_by_cgroup(), reason="the monitor would count this group's memory, not the machine's")
def test_worker_killed_for_its_memory_is_replaced(no_ray, tmp_path, monkeypatch):
    before = memory()
    if before["MemAvailable"] < 3 * MARGIN:
        pytest.skip(f"needs {3 * MARGIN / 2**30:.0f} GiB of free memory")
    used = before["MemTotal"] - before["MemAvailable"]
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(used + MARGIN) / before['MemTotal']:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    greedy = f"push:devour_once={tmp_path / 'mark'}={2 * MARGIN}"
    shards, samples = make_shards(["", greedy, ""], 3)
    events = []
    outcome = supervise(
        shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), PickleSink(tmp_path),
        workers=1, on_event=events.append, build=build_fake,
    )  # fmt: skip
    assert outcome.statuses == {"ok": 3}
    assert outcome.quarantined == []
    lost = [event for event in events if isinstance(event, WorkerLost)]
    assert {event.kind for event in lost} == {"crash"}
    assert "memory" in lost[0].text
