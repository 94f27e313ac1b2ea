"""Whether one driver carries many fast workers: its CPU seconds for every second of a fleet's work, and how many reports that is.

    python -m bench driver_load [--workers 64] [--rates 50 500 2000] [--seconds 20]

A fleet without processes explains images at a rate, in simulated time, and reports as workers do: in groups where images are fast
(`workers/worker/report_pace.py`). What the loop, the policy and the listener take of this process's CPU is measured; what Ray itself takes
for each report stands in the section *Scale*.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence

from heatlas.workers.events import ImagesAlive, ShardDone, StartReport, WorkerEvent, WorkerPlaced, Writing
from heatlas.workers.policy.policy import Limits, Policy
from heatlas.workers.ray.supervisor import _Run
from heatlas.workers.samples import Sample, Shard
from heatlas.workers.worker.report_pace import ReportPace

from ..page_part import table, write_section

SHARD_SECONDS = 60
TURN_SECONDS = 0.05
"""Of simulated time: events of that long are taken in at once, as `ray.wait` gives them."""


class Fleet:
    """Workers in simulated time.

    Args:
        rate: Images a second of each.
        grouped: Whether they report fast images in groups.
    """

    def __init__(self, rate: float, *, grouped: bool):
        self.rate, self.grouped = rate, grouped
        self.now, self.reports = 0.0, 0
        self._queue: list[tuple[float, int, int, WorkerEvent]] = []
        self._number = itertools.count()
        self._paces: dict[int, ReportPace] = {}
        self._clocks: dict[int, list[float]] = {}

    def spawn(self, worker: int) -> None:
        clock = self._clocks[worker] = [0.0]
        self._paces[worker] = ReportPace(lambda: clock[0])
        for event in (WorkerPlaced(worker, "simulated"), StartReport("cpu")):
            self._push(self.now, worker, event)

    def dispatch(self, worker: int, shard: Shard, samples: Sequence[Sample], *_: object) -> None:
        pace, clock = self._paces[worker], self._clocks[worker]
        pace.pause()
        clock[0], done = self.now, 0
        while done < len(samples):
            size = min(pace.size if self.grouped else 1, len(samples) - done)
            self._push(clock[0], worker, ImagesAlive(tuple(range(done, done + size)), done))
            pace.reported()
            clock[0], done = clock[0] + size / self.rate, done + size
        self._push(clock[0], worker, Writing())
        self._push(clock[0], worker, ShardDone(done, done, True, {"ok": done}))

    def events(self, timeout: float) -> Iterator[tuple[int, WorkerEvent]]:
        self.now += TURN_SECONDS
        ready: deque[tuple[int, WorkerEvent]] = deque()
        while self._queue and self._queue[0][0] <= self.now:
            _, _, worker, event = heapq.heappop(self._queue)
            ready.append((worker, event))
        self.reports += len(ready)
        yield from ready

    def _push(self, moment: float, worker: int, event: WorkerEvent) -> None:
        heapq.heappush(self._queue, (moment, next(self._number), worker, event))


def load(workers: int, rate: float, seconds: float, *, grouped: bool) -> tuple[float, float]:
    """CPU seconds of the driver and reports, for each second of the fleet's work at `rate` images a second together."""
    each = rate / workers
    images = max(1, min(1024, round(SHARD_SECONDS * each)))
    count = max(workers, round(rate * seconds / images))
    shards = [Shard(index, index * images, (index + 1) * images) for index in range(count)]
    samples = [Sample(str(position), "x") for position in range(images)]
    fleet = Fleet(each, grouped=grouped)
    run = _Run(shards, lambda shard: samples, fleet, Policy(shards, Limits()), lambda event: None)  # type: ignore[arg-type]
    begun = time.process_time()
    while not run.policy.ended:
        run.set_capacity(workers)
        run.turn(0.0)
    if len(run.totals.done) != count:
        raise SystemExit(f"only {len(run.totals.done)} of {count} shards were done")
    return (time.process_time() - begun) / fleet.now, fleet.reports / fleet.now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--rates", type=float, nargs="+", default=[50.0, 500.0, 2000.0])
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    rows = []
    for rate in given.rates:
        for grouped in (False, True):
            cpu, reports = load(given.workers, rate, given.seconds, grouped=grouped)
            how = "in groups" if grouped else "one by one"
            rows.append((f"{rate:,.0f}", how, f"{reports:,.0f}", f"{cpu:.3f}"))
            print(*rows[-1], flush=True)
    write_section(
        "driver_load",
        [
            "## One driver and many workers",
            "",
            f"{given.workers} simulated workers, `python -m bench driver_load`: reports a second that reach the driver, and the CPU seconds that its loop, policy and "
            "listener take for each second. Through Ray every report also costs a round trip, about 0.6 ms of the driver (*Scale*): some 1,600 reports a second are "
            "its limit, whatever the number of workers.",
            "",
            *table(("images/s together", "reported", "reports/s", "driver's CPU seconds a second"), rows),
        ],
    )


if __name__ == "__main__":
    main()
