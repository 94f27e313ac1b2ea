"""The chaos harness as a test: workers and drivers killed at random, images that raise, segfault and hang. Long forms: `make soak`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..support.checkout import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="finds workers in /proc")


def chaos(*arguments: str, timeout: float) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "chaos", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_one_seed_on_local_disk():
    """A driver killed, workers killed, three poisoned images: no row missing, twice or wrong, and the others as ever."""
    told = chaos("--short", timeout=880)
    row = [cell.strip() for cell in told.splitlines()[2].strip("|").split("|")]
    store, seed, workers, drivers, missing, twice, wrong, content, *_ = row
    assert (store, seed, drivers) == ("local", "0", "1")
    assert int(workers) >= 1, "no worker was killed, so nothing was tested"
    assert (missing, twice, wrong, content) == ("0", "0", "0", "equal")


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("store", ["local", "s3"])
def test_five_seeds(store: str):
    told = chaos("--seeds", "5", "--store", store, timeout=3 * 3600)
    assert "5 of 5 runs as they must be, the same content in all stores" in told
