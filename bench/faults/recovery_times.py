"""Does one fault after the other to a run and measures how long its shard takes to recover and how much work is done again.

    python -m bench recovery_times --seeds 5 [--write-docs]

Even seeds store on local disk, odd ones on S3 (moto's server). A seed decides at which image of its shard a fault strikes. One
shard, one fault, one worker: what the tally of begun images holds beyond one an image was redone because of that fault.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import heatlas
from heatlas.pipeline.store.committed_shards import done_shards

from ..page_part import DOCS, machine, write_part
from .fault_cluster import FaultCluster
from .object_store import s3_server
from .poisoned_data import expected_statuses, write_images
from .poisoned_model import MEAL, SLOW, TALLY
from .processes import busy_workers, kill

ROOT = Path(__file__).parents[2]
SHARD = 4
SLOWLY = 0.5
TIMEOUT = 12.0
TRIES = 5
MARGIN = 3 * 2**30
"""Bytes above what the machine uses now at which Ray's memory monitor kills."""

IN_THE_IMAGE = {"raise": "an image raises", "segfault": "an image segfaults", "abort": "an image calls abort", "hang": "an image hangs"}  # fmt: skip
NONE, KILLED, FROZEN, DRIVER = "none", "worker killed (SIGKILL)", "worker frozen (SIGSTOP)", "driver killed (SIGKILL)"
MEMORY, NODE_LOST, NODE_FROZEN = "an image eats all memory", "node lost", "node frozen (SIGSTOP)"


class Disturbed(RuntimeError):
    """The run did not come out as it must."""


@dataclass(frozen=True)
class Measured:
    """One fault once."""

    fault: str
    seconds: float
    """From the fault until its shard is committed."""
    redone: int
    """Images of the shard begun again."""


@dataclass
class Scene:
    """A data set whose shard number n meets the nth fault."""

    faults: list[str]
    chance: random.Random
    folder: Path
    out: str
    options: list[str] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)
    at: dict[int, float] = field(default_factory=dict)
    """When the fault of a shard struck."""
    committed: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = {text: kind for kind, text in {**IN_THE_IMAGE, "devour": MEMORY}.items()}
        self.strikes = {n: n * SHARD + self.chance.randrange(SHARD) for n, _ in enumerate(self.faults)}
        self.poison = {kinds[fault]: self.strikes[n] for n, fault in enumerate(self.faults) if fault in kinds}
        self.images = len(self.faults) * SHARD
        self.folder.mkdir(parents=True)
        write_images(self.folder / "images", self.images, self.poison)
        self.tally = self.folder / "tally"
        self.tally.touch()

    @contextmanager
    def driver(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [
            sys.executable, "-m", "heatlas", "explain", "--model", "bench.faults.poisoned_model:model", "--workers", "1",
            "--data", str(self.folder / "images" / "all.csv"), "--out", self.out, "--shard-size", str(SHARD),
            "--batch-size", "16", "--chance-maps", "0", "--image-timeout", str(TIMEOUT), "--max-error-rate", "1", *self.options,
        ]  # fmt: skip
        environment = {**os.environ, **self.settings(), **self.environment}
        with (self.folder / "driver.log").open("ab") as words:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=words, stderr=words)
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def settings(self) -> dict[str, str]:
        """What workers must find in their environment."""
        return {TALLY: str(self.tally), SLOW: str(SLOWLY), "OMP_NUM_THREADS": "1"}

    def play(self, deeds: Mapping[str, Callable[[int], None]]) -> list[Measured]:
        """Run to the end, doing the deed of a shard's fault (given the driver's process id) when its moment comes."""
        while True:
            with self.driver() as process:
                while process.poll() is None:
                    time.sleep(0.05)
                    self.look(process.pid, deeds)
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise Disturbed(f"exit code {process.returncode}:\n{(self.folder / 'driver.log').read_text()}")
        self.note_commits()
        self.check()
        begun = Counter(number // SHARD for number in self.begun())
        return [
            Measured(fault, self.committed[n] - self.at[n], begun[n] - SHARD) for n, fault in enumerate(self.faults)
        ]

    def look(self, driver: int, deeds: Mapping[str, Callable[[int], None]]) -> None:
        seen = set(self.begun())
        for n, fault in enumerate(self.faults):
            if n not in self.at and self.strikes[n] in seen:
                self.at[n] = time.monotonic()
                deeds.get(fault, lambda pid: None)(driver)
        self.note_commits()

    def note_commits(self) -> None:
        for n in done_shards(self.out):
            self.committed.setdefault(n, time.monotonic())

    def begun(self) -> list[int]:
        """Positions of the images begun so far, in order, with repetitions."""
        return [int(line) for line in self.tally.read_text().split("\n")[:-1]]

    def check(self) -> None:
        """The faults must have done no harm, else their costs mean nothing."""
        rows = heatlas.open(self.out).sql("select id, status from atlas").fetchall()
        if sorted(rows) != sorted(expected_statuses(self.images, self.poison).items()):
            raise Disturbed(f"wrong rows in {self.out}: {rows}")


def stop_driver(driver: int) -> None:
    kill(driver)


def on_worker(how: int) -> Callable[[int], None]:
    """Signal the one worker at work."""

    def deed(driver: int) -> None:
        [worker] = busy_workers(driver)
        kill(worker, how)

    return deed


def one_machine(chance: random.Random, folder: Path, out: str) -> list[Measured]:
    scene = Scene([NONE, *IN_THE_IMAGE.values(), KILLED, FROZEN, DRIVER, NONE], chance, folder, out)
    return scene.play({KILLED: on_worker(signal.SIGKILL), FROZEN: on_worker(signal.SIGSTOP), DRIVER: stop_driver})


def little_memory(chance: random.Random, folder: Path, out: str) -> list[Measured]:
    """Ray's monitor counts the memory of other programs too: where theirs grew meanwhile it killed the innocent, and the try is void."""
    for attempt in range(TRIES):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        limits = {
            "RAY_memory_usage_threshold": f"{(total - free + MARGIN) / total:.4f}",
            "RAY_memory_monitor_refresh_ms": "100",
            MEAL: str(2 * MARGIN),
        }
        try:
            return Scene([MEMORY], chance, folder / str(attempt), f"{out}-{attempt}", environment=limits).play({})
        except Disturbed as error:
            print(f"try {attempt} of {MEMORY!r} is void: {str(error).splitlines()[-1][:200]}", flush=True)
    raise SystemExit(f"{MEMORY!r} could not be measured in {TRIES} tries; let this machine rest meanwhile")


def several_nodes(chance: random.Random, folder: Path, out: str) -> list[Measured]:
    scene = Scene([NODE_LOST, NODE_FROZEN], chance, folder, out)
    with FaultCluster(scene.settings()) as cluster:
        scene.options = ["--address", cluster.address, "--shared-fs"]
        return scene.play(
            {NODE_LOST: lambda driver: cluster.lose_node(), NODE_FROZEN: lambda driver: cluster.freeze_node()}
        )


def table(measured: list[Measured], seeds: int) -> str:
    """For the documentation: medians, and the worst."""
    by_fault: dict[str, list[Measured]] = defaultdict(list)
    for measurement in measured:
        by_fault[measurement.fault].append(measurement)
    lines = [
        f"Shards of {SHARD} images that take {SLOWLY:g} s each, one worker, image timeout {TIMEOUT:g} s; {seeds} seeds, even ones on local disk, odd "
        f"ones on S3 (moto's server). {machine()}, which other work shared: most of the time goes into starting workers, whose "
        "imports alone take seconds there.",
        "",
        "| fault | times | seconds until its shard is committed: median | worst | images begun again: median | worst |",
        "|---|---|---|---|---|---|",
    ]
    for fault, all_of_it in by_fault.items():
        seconds, redone = (
            [measurement.seconds for measurement in all_of_it],
            [measurement.redone for measurement in all_of_it],
        )
        lines.append(
            f"| {fault} | {len(all_of_it)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} "
            f"| {statistics.median(redone):g} | {max(redone)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/guarantees.md")
    arguments = parser.parse_args()
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="heatlas-faults-") as name:
        for seed in range(arguments.seeds):
            with s3_server() if seed % 2 else nullcontext(f"{name}/stores") as base:
                for scene in (one_machine, little_memory, several_nodes):
                    title = f"{scene.__name__}-{seed}"
                    result = scene(random.Random(seed), Path(name) / title, f"{base}/{title}")
                    measured += result
                    for record in result:
                        print(
                            f"seed {seed}: {record.fault}: {record.seconds:.1f} s, {record.redone} images again",
                            flush=True,
                        )
    print(table(measured, arguments.seeds))
    if arguments.write_docs:
        write_part(DOCS / "guarantees.md", "faults", table(measured, arguments.seeds))


if __name__ == "__main__":
    main()
