"""Large stores within bounds of memory: a short form in the suite, 10^6 rows (clusters: 10^5 of one class) with `-m soak`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..support.planted_store import write_planted

PROGRAM = """
import re, sys, time
import heatlas
atlas, begun = heatlas.open(sys.argv[1]), time.monotonic()
{call}
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())  # ru_maxrss would count what pytest had before the fork
print(time.monotonic() - begun, int(peak[1]) / 1e6)
"""
CURATE = "table = atlas.curate(); assert set(table['recipe'].to_pylist()) >= {'shortcut', 'class_outlier', 'label_suspicion'}"
CLUSTER = "found = atlas.cluster(); assert found.clusters['class_name'][0].as_py() == 'class-03'"


def measured(out: Path, call: str) -> tuple[float, float]:
    """Seconds and gigabytes of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call), str(out)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    seconds, gigabytes = done.stdout.split()[-2:]
    return float(seconds), float(gigabytes)


@pytest.mark.parametrize("call", [CURATE, CLUSTER])
def test_ten_thousand_rows_take_little_memory(tmp_path_factory, call):
    out = tmp_path_factory.getbasetemp() / "rows-10000"
    if not (out / "_SUCCESS").exists():
        write_planted(out, 10_000, classes=20)
    assert measured(out, call)[1] < 1.0


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_rows_are_curated_within_four_gigabytes(tmp_path):
    out = write_planted(tmp_path / "out", 1_000_000, classes=20)
    seconds, gigabytes = measured(out, CURATE)
    print(f"curate, 10^6 rows: {seconds:.0f} s, {gigabytes:.1f} GB")
    assert gigabytes < 4


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("classes", [4, 20])
def test_a_hundred_thousand_maps_are_clustered_within_four_gigabytes(tmp_path, classes):
    out = write_planted(tmp_path / "out", 100_000, classes=classes)
    seconds, gigabytes = measured(out, CLUSTER)
    print(f"cluster, 10^5 rows in {classes} classes: {seconds:.0f} s, {gigabytes:.1f} GB")
    assert gigabytes < 4
