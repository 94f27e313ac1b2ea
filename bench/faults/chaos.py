"""Runs heatlas while its workers and its driver are killed at random, and counts what is missing, twice or wrong.

    python -m bench chaos --seeds 5 --store local|s3|both [--short] [--write-docs]

Each seed is one data set explained to the end: every few seconds a worker at work is killed (SIGKILL), the driver is killed
(SIGKILL) three times and started again, and four images raise, segfault, abort and hang. What must come out: no row missing,
none twice, exactly the planted error rows, every other row equal to that of an undisturbed run.

A worker is left alone while its shard has been lost twice already and is not committed: a third kill on the same image would
quarantine it, rightly by the rule of three, and the harness could not tell a wrong quarantine from a deserved one.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import heatlas
from heatlas.pipeline.store.committed_shards import done_shards, part_tables
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.row_digest import row_digests

from ..page_part import DOCS, machine, write_part
from .object_store import s3_server
from .poisoned_data import expected_statuses, write_images
from .poisoned_model import SLOW, TALLY
from .processes import busy_workers, kill

ROOT = Path(__file__).parents[2]
LOST = re.compile(r"lost on shard (\d+)")


@dataclass(frozen=True)
class Scale:
    """How large the data is and how hard it is treated."""

    images: int
    shard: int
    poison: dict[str, int]
    driver_kills: int
    pause: tuple[float, float]
    """Seconds between two kills of workers, least and most."""
    slow: float
    image_timeout: float
    calm: str
    """The manifest of the undisturbed run: everything, poison included, or without it, which saves the time of its quarantines."""

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard)


LONG = Scale(60, 4, {"raise": 5, "segfault": 18, "abort": 33, "hang": 50}, 3, (3.0, 6.0), 0.3, 8.0, "all.csv")
SHORT = Scale(24, 4, {"raise": 2, "segfault": 9, "hang": 18}, 1, (3.0, 6.0), 0.2, 4.0, "calm.csv")


@dataclass
class Verdict:
    """What one seed came to."""

    seed: int
    store: str
    missing: int
    twice: int
    wrong: dict[str, str]
    """Rows whose status is not the planted one, by id."""
    equal: bool
    """Whether the rows equal those of the undisturbed run: all of them, or the `ok` ones if that had no poison."""
    digest: str
    redone: float
    """Images begun more than once, as a share of the images."""
    seconds: float
    worker_kills: int
    driver_kills: int

    @property
    def good(self) -> bool:
        return not (self.missing or self.twice or self.wrong) and self.equal

    def line(self) -> str:
        digest = "equal" if self.equal else "DIFFERENT"
        return (
            f"| {self.store} | {self.seed} | {self.worker_kills} | {self.driver_kills} | {self.missing} | {self.twice} "
            f"| {len(self.wrong)} | {digest} | {self.redone:.0%} | {self.seconds:.0f} |"
        )


HEADER = (
    "| store | seed | workers killed | driver killed | rows missing | rows twice | wrong statuses | content | images redone | seconds |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Run:
    """One data set on its way into one store, through as many drivers as it takes."""

    scale: Scale
    data: Path
    out: str
    folder: Path
    """For logs of the drivers and the tally of forwards."""
    worker_kills: int = 0
    driver_kills: int = 0
    drivers: list[Path] = field(default_factory=list)

    def command(self, manifest: str, out: str) -> list[str]:
        scale = self.scale
        return [
            sys.executable, "-m", "heatlas", "explain", "--model", "bench.faults.poisoned_model:model",
            "--data", str(self.data / manifest), "--out", out, "--shard-size", str(scale.shard), "--workers", "2",
            "--batch-size", "16", "--chance-maps", "0", "--image-timeout", str(scale.image_timeout), "--shard-retries", "30",
        ]  # fmt: skip

    @contextmanager
    def driver(self) -> Iterator[subprocess.Popen[bytes]]:
        """A driver with its words in a file of its own; it does not outlive this block."""
        log = self.folder / f"driver-{len(self.drivers)}.log"
        self.drivers.append(log)
        environment = {**os.environ, TALLY: str(self.tally), SLOW: str(self.scale.slow), "OMP_NUM_THREADS": "1"}
        with log.open("wb") as words:
            process = subprocess.Popen(
                self.command("all.csv", self.out), cwd=ROOT, env=environment, stdout=words, stderr=words
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    @property
    def tally(self) -> Path:
        return self.folder / "tally"

    def done(self) -> dict[int, int]:
        return done_shards(self.out)

    def to_the_end(self, chance: random.Random) -> None:
        """Drive and harass until a driver says that everything is done."""
        marks = sorted(chance.sample(range(1, self.scale.shards - 1), self.scale.driver_kills))
        while True:
            with self.driver() as process:
                code = self.harass(process, chance, marks[0] if marks else None)
            if code == 0 and not marks:
                return
            if code == 0:
                raise SystemExit(f"the run ended before its driver could be killed {len(marks)} more times")
            if code != -signal.SIGKILL:
                raise SystemExit(f"a driver ended with exit code {code}:\n{self.drivers[-1].read_text()}")
            marks = marks[1:]
            self.driver_kills += 1

    def harass(self, process: subprocess.Popen[bytes], chance: random.Random, mark: int | None) -> int:
        """Kill workers until the driver ends; kill the driver once `mark` shards are committed. Gives its exit code."""
        due = time.monotonic() + chance.uniform(*self.scale.pause)
        while process.poll() is None:
            time.sleep(0.1)
            if mark is not None and len(self.done()) >= mark:
                time.sleep(chance.uniform(0, 1))
                process.kill()
                return process.wait()
            if time.monotonic() < due or self.endangered():
                continue
            due = time.monotonic() + chance.uniform(*self.scale.pause)
            if victims := busy_workers(process.pid):
                self.worker_kills += kill(chance.choice(victims))
        return process.wait()

    def endangered(self) -> bool:
        """Whether a shard that this driver lost twice is not committed yet."""
        lost = Counter(int(shard) for shard in LOST.findall(self.drivers[-1].read_text(errors="replace")))
        often = {shard for shard, times in lost.items() if times >= 2}
        return bool(often) and not often <= self.done().keys()

    def images_begun(self) -> int:
        return len(self.tally.read_text().split())


def innocent_rows(out: str) -> list[bytes]:
    """Digests of the rows that are `ok`."""
    return sorted(digest for table in part_tables(out) for digest in row_digests(table.filter(ok_rows(table))))


def ok_rows(table):
    import pyarrow.compute as pc

    return pc.equal(table["status"], "ok")


def calm_run(scale: Scale, data: Path, folder: Path) -> str:
    """An undisturbed run; where its store is."""
    out = str(folder / "calm")
    command = Run(scale, data, out, folder).command(scale.calm, out)
    if scale.calm == "calm.csv":  # nothing in it kills its process
        command[command.index("--workers") + 1] = "0"
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


def same_rows(scale: Scale, out: str, calm: str) -> bool:
    if scale.calm == "all.csv":
        return logical_digest(out) == logical_digest(calm)
    return innocent_rows(out) == innocent_rows(calm)


def one_seed(seed: int, store: str, scale: Scale, data: Path, base: str, folder: Path, calm: str) -> Verdict:
    """Run one seed and judge what it left."""
    folder.mkdir(parents=True)
    run = Run(scale, data, f"{base}/seed-{seed}", folder)
    begun = time.monotonic()
    run.to_the_end(random.Random(seed))
    seconds = time.monotonic() - begun
    expected = expected_statuses(scale.images, scale.poison)
    rows = heatlas.open(run.out).sql("select id, status from atlas").fetchall()
    result = dict(rows)
    return Verdict(
        seed=seed, store=store, missing=len(expected.keys() - result.keys()), twice=len(rows) - len(result),
        wrong={name: status for name, status in result.items() if expected.get(name) != status},
        equal=same_rows(scale, run.out, calm), digest=logical_digest(run.out),
        redone=max(0, run.images_begun() - scale.images) / scale.images, seconds=seconds,
        worker_kills=run.worker_kills, driver_kills=run.driver_kills,
    )  # fmt: skip


def judge(verdicts: Sequence[Verdict]) -> str:
    """The closing sentence."""
    digests = len({verdict.digest for verdict in verdicts})
    stores = "the same content in all stores" if digests == 1 else f"{digests} DIFFERENT contents"
    bad = [verdict for verdict in verdicts if not verdict.good]
    wrong = "".join(f"\nseed {verdict.seed} on {verdict.store}: {verdict.wrong}" for verdict in bad if verdict.wrong)
    return f"{len(verdicts) - len(bad)} of {len(verdicts)} runs as they must be, {stores}{wrong}"


def table(verdicts: Sequence[Verdict], scale: Scale) -> str:
    """For the documentation."""
    low, high = scale.pause
    about = (
        f"{scale.images} images in {scale.shards} shards, 2 workers, of which one is killed every {low:g} to {high:g} s while at work; "
        f"images that {', '.join(scale.poison)}; image timeout {scale.image_timeout:g} s. {machine()}, which other work shared; "
        f"the S3 server is moto's. {judge(verdicts)}."
    )
    return "\n".join([about, "", HEADER, *(verdict.line() for verdict in verdicts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0")
    parser.add_argument("--store", choices=("local", "s3", "both"), default="local")
    parser.add_argument("--short", action="store_true", help="few images and one driver kill: less than a minute")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/guarantees.md")
    arguments = parser.parse_args()
    scale = SHORT if arguments.short else LONG
    stores = ("local", "s3") if arguments.store == "both" else (arguments.store,)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="heatlas-chaos-") as name:
        folder, data = Path(name), Path(name) / "images"
        write_images(data, scale.images, scale.poison)
        calm = calm_run(scale, data, folder)
        print(HEADER, flush=True)
        for store in stores:
            with s3_server() if store == "s3" else nullcontext(str(folder / "stores")) as base:
                for seed in range(arguments.seeds):
                    verdicts.append(one_seed(seed, store, scale, data, base, folder / store / str(seed), calm))
                    print(verdicts[-1].line(), flush=True)
    print(judge(verdicts))
    if arguments.write_docs:
        write_part(DOCS / "guarantees.md", "chaos", table(verdicts, scale))
    if not all(verdict.good for verdict in verdicts) or len({verdict.digest for verdict in verdicts}) > 1:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
