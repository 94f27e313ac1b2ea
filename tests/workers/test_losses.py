"""A driver killed: its workers go with it, nothing stays behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..support import fake_engine

DRIVER = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from fake_engine import *
from heatlas.workers.ray.supervisor import supervise
uris = ["push:pid={out}/pid", "push:hang"]
shards, samples = make_shards(uris, 2)
supervise(shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), PickleSink(Path({out!r})), workers=1, build=build_fake)
"""


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
