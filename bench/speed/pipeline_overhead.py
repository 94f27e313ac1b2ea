"""A run through Ray with N workers beside N bare engines without Ray, shards or storage; and what starting up costs.

    python -m bench pipeline_overhead [--workers 1 2] [--images 12] [--shards 2] [--mu 0.3] [--rounds 3]

Each round runs both in turns on the same images: `bare` starts N plain processes, each of which decodes its images and pushes them through
the same engine; `ray` is the supervisor with N actors and the Parquet sink. Compared is the time from the first image to the last, in
each worker, on the wall clock and as CPU time, which other programs on the machine disturb less. Choose --images so that a shard takes a
minute. Start-up is timed apart: Ray, the actor's process with its imports, the model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.events import RunEvent, ShardFinished, ShardStarted, WorkersChanged
from heatlas.workers.models.load import ModelSpec
from heatlas.workers.protocols import SampleReader
from heatlas.workers.ray.supervisor import supervise
from heatlas.workers.samples import Shard
from heatlas.workers.worker.build import build_engine
from heatlas.workers.worker.engine_protocol import Engine
from heatlas.workers.worker.spec import WorkerSpec

from ..data_sets import boxed_samples, weights_of
from ..page_part import table, write_section
from ..records import Records

NAMES = ("drop_pct", "increase", "ebpg")


def worker_spec(mu: float, precision: str) -> WorkerSpec:
    model = ModelSpec(spec=f"torchvision:mobilenet_v2@{weights_of('mobilenet_v2')}", size=(224, 224), resize="squash")
    return WorkerSpec(
        model=model,
        method_settings={"mu": mu},
        scoring=Scoring(batch_size=32, precision=precision),
        metrics=NAMES,
        device="auto",
    )


def clocks() -> tuple[float, float]:
    """Wall clock, comparable between processes, and this process's CPU seconds."""
    return time.time(), time.process_time()


class TimedSession:
    """A session that notes when each image came and when the shard's last one left."""

    session: Any = None

    def __init__(self, session: Any, path: Path):
        self.session, self.path = session, path

    def push(self, key: int, image: Any, **options: Any) -> Any:
        self._note("push")
        return self.session.push(key, image, **options)

    def finish(self) -> Any:
        result = self.session.finish()
        self._note("finish")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def _note(self, what: str) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([what, *clocks()]) + "\n")


def build_timed(folder: str, spec: WorkerSpec, reader: SampleReader) -> Engine:
    """The real engine with a timed session; notes in a file of this process when building began and ended."""
    path = Path(folder) / f"{os.getpid()}.jsonl"
    begun = clocks()
    engine = build_engine(spec, reader)
    path.write_text("".join(json.dumps(note) + "\n" for note in (["build", *begun], ["built", *clocks()])))
    engine.session = TimedSession(engine.session, path)  # type: ignore[misc]
    return engine


def spans(folder: str) -> tuple[float, float]:
    """Mean wall and CPU seconds of the workers, from the first image to the last."""
    walls, cpus = [], []
    for path in Path(folder).glob("*.jsonl"):
        notes = [json.loads(line) for line in path.read_text().splitlines()]
        first, last = (
            next(note for note in notes if note[0] == "push"),
            [note for note in notes if note[0] == "finish"][-1],
        )
        walls.append(last[1] - first[1])
        cpus.append(last[2] - first[2])
    return statistics.mean(walls), statistics.mean(cpus)


def through_ray(workers: int, shards: int, images: int, spec: WorkerSpec) -> dict[str, float]:
    """One run; every worker gets `shards` shards of the same `images`."""
    samples = boxed_samples(images)
    plan = [Shard(index, index * images, (index + 1) * images) for index in range(workers * shards)]
    seen: dict[str, float] = {}

    def hear(event: RunEvent) -> None:
        name = f"{type(event).__name__}{event.ready if isinstance(event, WorkersChanged) else ''}"
        seen.setdefault(name, time.time())
        if isinstance(event, ShardFinished):
            seen["last"] = time.time()

    with tempfile.TemporaryDirectory() as notes, tempfile.TemporaryDirectory() as out:
        layout = StoreLayout(input_size=(224, 224), method="sise", metrics=NAMES, chance_metrics=(), map_size=56, with_map=True, with_png=True, metadata={})  # fmt: skip
        begun = time.time()
        outcome = supervise(plan, lambda shard: samples, spec, FsspecReader(), ParquetSink(out, layout), workers=workers,
                  build=partial(build_timed, notes), local_paths=(), on_event=hear)  # fmt: skip
        ended = time.time()
        if outcome.undone:
            raise SystemExit(f"shards were not done: {outcome.undone}")
        wall, cpu = spans(notes)
        builds = [[json.loads(line) for line in path.read_text().splitlines()[:2]] for path in Path(notes).glob("*")]
    ray_up, first = seen["WorkersChanged0"], seen[ShardStarted.__name__]
    building = min(build[0][1] for build in builds)
    return {
        "wall": wall, "cpu": cpu, "ray": ray_up - begun, "process": building - ray_up,
        "model": statistics.mean(built[1] - build[1] for build, built in builds), "to_first_shard": first - begun,
        "down": ended - seen["last"],
    }  # fmt: skip


def bare(workers: int, shards: int, images: int, mu: float, precision: str) -> dict[str, float]:
    """N processes at the same time, each explaining the same images."""
    with tempfile.TemporaryDirectory() as notes:
        command = [
            sys.executable,
            "-m",
            "bench",
            "pipeline_overhead",
            "--bare",
            json.dumps([notes, shards, images, mu, precision]),
        ]
        started = [subprocess.Popen(command) for _ in range(workers)]
        if any(process.wait() for process in started):
            raise SystemExit("a bare process failed")
        wall, cpu = spans(notes)
    return {"wall": wall, "cpu": cpu}


def explain_bare(folder: str, shards: int, images: int, mu: float, precision: str) -> None:
    reader = FsspecReader()
    engine = build_timed(folder, worker_spec(mu, precision), reader)
    samples = boxed_samples(images)
    for _ in range(shards):
        for key, sample in enumerate(samples):
            ready = engine.prepare(sample, reader)
            engine.session.push(key, ready.image, truth=ready.truth)
        engine.session.finish()


def lines(figures: dict[str, Any]) -> list[str]:
    rounds: dict[str, list[dict[str, Any]]] = {}
    for key, record in figures.items():
        rounds.setdefault(key.rsplit(" ", 1)[0], []).append(record)
    rows, starts = [], []
    for key, several in rounds.items():
        workers, shards, images, mu, precision = key.split()
        ratios = [[round_["ray"][clock] / round_["bare"][clock] - 1 for round_ in several] for clock in ("wall", "cpu")]
        seconds = statistics.median(round_["bare"]["wall"] for round_ in several) / int(shards)
        rows.append([workers, images, f"{seconds:.0f} s", f"{precision}, mu = {mu}", len(several),
                     *(f"{statistics.median(ratio):+.1%} ({min(ratio):+.1%} to {max(ratio):+.1%})" for ratio in ratios)])  # fmt: skip
        starts.append([workers, *(f"{statistics.median(round_['ray'][part] for round_ in several):.1f}" for part in ("ray", "process", "model", "to_first_shard", "down"))])  # fmt: skip
    return [
        "## What the pipeline adds",
        "",
        "MobileNetV2 through Ray (supervisor, actors, an event for every image, Parquet) beside bare engines in processes of their own,",
        "from the first image to the last, `python -m bench pipeline_overhead`. Median over rounds, in brackets the extremes; CPU time is what",
        "to read where other programs share the machine.",
        "",
        *table(
            (
                "workers",
                "images a shard",
                "a shard takes",
                "settings",
                "rounds",
                "overhead, wall clock",
                "overhead, CPU time",
            ),
            rows,
        ),
        "",
        "Start-up in seconds:",
        "",
        *table(
            (
                "workers",
                "Ray itself",
                "actor process and imports",
                "model",
                "until the first shard, all in all",
                "shutting down",
            ),
            starts,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=12, help="a shard")
    parser.add_argument("--shards", type=int, default=2, help="for each worker")
    parser.add_argument("--mu", type=float, default=0.3)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="forget earlier rounds")
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        explain_bare(*json.loads(arguments.bare))
        return
    records = Records("pipeline_overhead", fresh=arguments.fresh)
    work = (arguments.shards, arguments.images)
    for number in range(arguments.rounds):
        for workers in arguments.workers:
            key = f"{workers} {arguments.shards} {arguments.images} {arguments.mu:g} {arguments.precision} {number}"
            if key not in records:
                alone = bare(workers, *work, arguments.mu, arguments.precision)
                ray = through_ray(workers, *work, worker_spec(arguments.mu, arguments.precision))
                records.add(key, {"bare": alone, "ray": ray})
    write_section("pipeline_overhead", lines(records.found), packages=("ray",))


if __name__ == "__main__":
    main()
