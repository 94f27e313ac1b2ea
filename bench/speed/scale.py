"""What the driver sustains: the supervisor with hundreds of simulated workers, planning 10^7 images, resuming over 10^5 parts.

    python -m bench scale [--workers 10 100 300 1000] [--shards 2000] [--images 16] [--plan 10000000] [--parts 100000] [--actors 4]

The simulated fleet answers at once and holds no process, so what is measured is the loop, the policy and the listener alone: the most
that a driver can do. With --actors real Ray actors with a sleeping engine run beside it, which adds what Ray itself costs.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from heatlas.engine.session import Explained
from heatlas.pipeline.shards import plan_digest, plan_shards, samples_of
from heatlas.pipeline.sources.listing.check import check_unique_ids, listing_digest
from heatlas.pipeline.store import committed_shards
from heatlas.pipeline.store.part_names import part_path
from heatlas.workers.events import (
    ImagesAlive,
    RunEvent,
    ShardDone,
    ShardFinished,
    ShardStarted,
    StartReport,
    WorkerEvent,
    WorkerPlaced,
    Writing,
)
from heatlas.workers.images.decode import Prepared
from heatlas.workers.policy.policy import Limits, Policy
from heatlas.workers.ray.supervisor import _Run, supervise
from heatlas.workers.samples import Sample, Shard
from heatlas.workers.worker.spec import WorkerSpec

from ..page_part import table, write_section
from ..records import Records


class SimulatedPool:
    """Workers that always have their next answer ready; one answer of each per turn, as `ray.wait` gives them."""

    def __init__(self) -> None:
        self.waiting: dict[int, deque[WorkerEvent]] = {}

    def spawn(self, worker: int) -> None:
        self.waiting[worker] = deque([WorkerPlaced(worker, "simulated"), StartReport("cpu")])

    def dispatch(self, worker: int, shard: Shard, samples: Sequence[Sample], *_: object) -> None:
        alive = [ImagesAlive((position,), position) for position in range(len(samples))]
        self.waiting[worker].extend(
            [*alive, Writing(), ShardDone(len(samples), len(samples), True, {"ok": len(samples)})]
        )

    def events(self, timeout: float) -> Iterator[tuple[int, WorkerEvent]]:
        for worker, answers in self.waiting.items():
            if answers:
                yield worker, answers.popleft()


def simulated(workers: int, shards: int, images: int) -> dict[str, float]:
    """The loop of `supervise` over a fleet without processes."""
    plan = [Shard(index, index * images, (index + 1) * images) for index in range(shards)]
    samples = [Sample(str(position), "x") for position in range(images)]
    run = _Run(plan, lambda shard: samples, SimulatedPool(), Policy(plan, Limits()), lambda event: None)  # type: ignore[arg-type]
    begun = time.perf_counter()
    while not run.policy.ended:
        run.set_capacity(workers)
        run.turn(0.0)
    seconds = time.perf_counter() - begun
    if len(run.totals.done) != shards:
        raise SystemExit(f"only {len(run.totals.done)} of {shards} shards were done")
    return {"shards_per_second": shards / seconds, "events_per_second": shards * (images + 2) / seconds}


class SleepingSession:
    """Gives every image back after a fixed time."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def push(self, key: int, image: torch.Tensor, **_: object) -> list[Explained]:
        time.sleep(self.seconds)
        return [Explained("ok", None, 0, 0, 0.5, 0.0, mask_counts=(1,), key=key, seconds=self.seconds)]

    def finish(self) -> list[Explained]:
        return []

    def reset(self) -> None:
        pass


class SleepingEngine:
    """An engine that computes nothing."""

    num_classes, device, batch_size, notes = 10, "cpu", 1, ()

    def __init__(self, spec: WorkerSpec, reader: object):
        self.session = SleepingSession(0.005)

    def prepare(self, sample: Sample, reader: object) -> Prepared:
        return Prepared(torch.zeros(1, 1, 1), None, 1, 1)

    def shrink(self) -> bool:
        return False

    def usable(self) -> bool:
        return True


class NoStorage:
    """Reads nothing and commits at once."""

    def read(self, uri: str) -> bytes:
        return b""

    def commit(self, shard: Shard, rows: Sequence[Any]) -> bool:
        return True


def over_ray(actors: int, shards: int, images: int) -> dict[str, float]:
    """The same through Ray, with an engine that sleeps 5 ms an image; start-up left out."""
    plan = [Shard(index, index * images, (index + 1) * images) for index in range(shards)]
    samples = [Sample(str(position), "x") for position in range(images)]
    times: dict[type, list[float]] = {}

    def hear(event: RunEvent) -> None:
        times.setdefault(type(event), []).append(time.perf_counter())

    outcome = supervise(
        plan, lambda shard: samples, WorkerSpec(model=None, device="cpu"),  # type: ignore[arg-type]
        NoStorage(), NoStorage(), workers=actors, build=SleepingEngine, on_event=hear,  # type: ignore[arg-type]
    )  # fmt: skip
    if outcome.undone:
        raise SystemExit(f"{len(outcome.undone)} shards were not done: {outcome.undone[0]}")
    seconds = times[ShardFinished][-1] - times[ShardStarted][0]
    return {"shards_per_second": shards / seconds, "events_per_second": shards * (images + 2) / seconds,
            "sleep_share": shards * images * 0.005 / actors / seconds}  # fmt: skip


def planning(images: int) -> dict[str, float]:
    """Time and memory from a listing of so many images to its shards and their digest."""
    ids = pa.array([f"n{index // 1300:05d}/image_{index:08d}.jpeg" for index in range(images)])
    listing = pa.table({
        "id": ids, "uri": ids, "label": pa.array((np.arange(images) // 1300 % 1000).astype(np.int32)),
        "boxes": pa.nulls(images, pa.list_(pa.list_(pa.float64()))), "mask_uri": pa.nulls(images, pa.string()),
    })  # fmt: skip
    del ids
    before, result = resident(), {}
    begun = time.perf_counter()
    check_unique_ids(listing)
    result["unique_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    digest = listing_digest(listing)
    result["digest_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    shards = plan_shards(images, 256)
    plan_digest(digest, shards)
    result["shards_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    samples_of(listing, shards[len(shards) // 2])
    result["one_shard_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    Policy(shards, Limits()).set_capacity(300, 0.0)
    result["policy_s"] = time.perf_counter() - begun
    result |= {"shards": len(shards), "listing_mib": listing.nbytes / 2**20, "peak_growth_mib": peak() - before}
    return result


def resuming(parts: int) -> dict[str, float]:
    """Which of so many parts are done: seconds, and how often storage was listed."""
    calls = 0
    real = committed_shards.sizes_in

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*arguments)

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "maps").mkdir()
        for index in range(parts):
            (Path(folder) / part_path(index)).touch()
        committed_shards.sizes_in = counted  # type: ignore[assignment]
        begun = time.perf_counter()
        done = committed_shards.done_shards(folder)
        seconds = time.perf_counter() - begun
        committed_shards.sizes_in = real
    if len(done) != parts:
        raise SystemExit(f"found {len(done)} of {parts} parts")
    return {"seconds": seconds, "listings": calls}


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def lines(figures: dict[str, Any]) -> list[str]:
    loops = [
        [key.split()[1], key.split()[3], f"{figure['shards_per_second']:.0f}", f"{figure['events_per_second']:.0f}"]
        for key, figure in figures.items() if key.startswith("simulated")
    ]  # fmt: skip
    out = [
        "## Scale",
        "",
        "`python -m bench scale`. The supervisor's loop and policy over simulated workers that answer at once and hold no process:",
        "",
        *table(("workers", "images a shard", "shards/s", "events/s"), loops),
        "",
    ]
    for key, figure in figures.items():
        kind, count = key.split()[:2]
        if kind == "ray":
            out += [f"Through Ray, {count} actors with an engine that sleeps 5 ms an image: {figure['shards_per_second']:.1f} shards/s, "
                    f"{figure['events_per_second']:.0f} events/s; the sleeping alone is {figure['sleep_share']:.0%} of the time.", ""]  # fmt: skip
        if kind == "plan":
            out += [f"Planning {int(count):,} images into {figure['shards']:,} shards: unique ids {figure['unique_s']:.1f} s, digest of the listing "
                    f"{figure['digest_s']:.1f} s, shards and their digest {figure['shards_s']:.2f} s, the policy's state {figure['policy_s']:.2f} s, "
                    f"the samples of one shard {figure['one_shard_s'] * 1000:.1f} ms. The listing is {figure['listing_mib']:.0f} MiB, on top of which "
                    f"planning takes at most {figure['peak_growth_mib']:.0f} MiB.", ""]  # fmt: skip
        if kind == "resume":
            out += [
                f"Resuming over {int(count):,} parts on a local disk: {figure['seconds']:.2f} s and {figure['listings']} listing.",
                "",
            ]
    return out[:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 300, 1000])
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--images", type=int, default=16, help="a shard")
    parser.add_argument("--plan", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=100_000)
    parser.add_argument("--actors", type=int, default=4, help="real ones; 0 for none")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    arguments = parser.parse_args()
    records = Records("scale", fresh=arguments.fresh)
    todo: dict[str, Any] = {
        f"plan {arguments.plan}": lambda: planning(arguments.plan)
    }  # first: its peak must be its own
    for workers in arguments.workers:
        todo[f"simulated {workers} {arguments.shards} {arguments.images}"] = lambda workers=workers: simulated(
            workers, arguments.shards, arguments.images
        )
    todo[f"resume {arguments.parts}"] = lambda: resuming(arguments.parts)
    if arguments.actors:
        todo[f"ray {arguments.actors} 40 50"] = lambda: over_ray(arguments.actors, 40, 50)
    for key, measure in todo.items():
        if key not in records:
            records.add(key, measure())
    write_section("scale", lines(records.found), packages=("ray", "pyarrow"))


if __name__ == "__main__":
    main()
