"""Explains the boxed images of ../shared/data twice, once undisturbed and once with the driver killed half-way and resumed.

    python -m bench kill_and_resume [--precision bf16] [--mu 0] [--limit 300] [--out FOLDER]

Prints EBPG and Drop, and whether the two stores hold the same rows: the driver dies by SIGKILL, so nothing can tidy up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import heatlas
from heatlas.pipeline.store.committed_shards import done_shards, row_totals
from heatlas.pipeline.store.content_digest import logical_digest

from ..data_sets import DATA, weights_of


def command(out: Path, arguments: argparse.Namespace) -> list[str]:
    """The `heatlas explain` command line of this measurement."""
    weights = weights_of("mobilenet_v2")
    return [
        sys.executable, "-m", "heatlas", "explain", "--out", str(out),
        "--model", f"torchvision:mobilenet_v2@{weights}", "--data", str(DATA / "imagenet_boxes" / "labels.csv"),
        "--columns.id", "file", "--columns.uri", "file", "--columns.boxes", "boxes_xyxy",
        "--preprocess.size", "224", "--preprocess.resize", "squash", "--workers", "2",
        "--precision", arguments.precision, "--sise.mu", str(arguments.mu), "--limit", str(arguments.limit),
        "--store.map-size", "input",  # so that `heatlas evaluate` can measure more afterwards
    ]  # fmt: skip


def run_to_end(out: Path, arguments: argparse.Namespace) -> float:
    """Seconds of one whole command."""
    begun = time.monotonic()
    subprocess.run(command(out, arguments), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def kill_half_way(out: Path, arguments: argparse.Namespace) -> int:
    """Start the command and SIGKILL its driver once half of the shards are committed; how many were."""
    driver = subprocess.Popen(command(out, arguments), stdout=subprocess.DEVNULL)
    while driver.poll() is None:
        time.sleep(0.5)
        done = len(done_shards(str(out))) if (out / "_run.json").exists() else 0
        if done and done >= planned_shards(out) // 2:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
            return done
    raise SystemExit("the run ended before it could be killed; use a larger --limit")


def planned_shards(out: Path) -> int:
    return json.loads((out / "_run.json").read_text())["fingerprint"]["plan"]["shards"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--mu", type=float, default=0.0)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument(
        "--out", type=Path, default=None, help="folder for the two stores; a temporary one if not given"
    )
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not here; this measurement needs its images and weights")
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="heatlas-kill-"))
    calm, killed = folder / "calm", folder / "killed"
    seconds = run_to_end(calm, arguments)
    atlas = heatlas.open(str(calm))
    print(
        f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs; {json.dumps(atlas.run['fingerprint']['versions'])}"
    )
    totals = row_totals(str(calm))
    print(
        f"undisturbed: {totals['rows']} rows {totals['statuses']}, {totals['forwards']:,} forwards, {seconds:.0f} s with 2 workers"
    )
    for name, facts in totals["metrics"].items():
        print(f"  {name:10} {facts['mean']:.4g}  (mean of {facts['count']})")
    done = kill_half_way(killed, arguments)
    print(f"driver killed with {done} of {planned_shards(killed)} shards committed")
    again = run_to_end(killed, arguments)
    rows = heatlas.open(str(killed)).sql("select count(*), count(distinct id) from atlas").fetchall()[0]
    same = logical_digest(str(killed)) == logical_digest(str(calm))
    print(
        f"resumed in {again:.0f} s: {rows[0]} rows, {rows[1]} ids, digest {'equal' if same else 'DIFFERENT'}; stores in {folder}"
    )
    if not same or rows != (arguments.limit, arguments.limit):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
