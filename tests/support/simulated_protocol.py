"""The processes that share a store, made of the code that really runs, and what must hold of the store whatever they do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from heatlas.errors import HeatlasError, NoRunError, RunError, RunMismatchError, StorageError
from heatlas.pipeline.explain.retry_errors import RetrySink, plan_retry
from heatlas.pipeline.explain.sections import PlannedSamples, with_new
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.sources.listing.check import listing_digest
from heatlas.pipeline.sources.listing.table import make_listing
from heatlas.pipeline.storage.atomic_write import remove
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.compact import compact_store
from heatlas.pipeline.store.completeness import check_complete
from heatlas.pipeline.store.footer_reader import part_summaries
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_check import check_part
from heatlas.pipeline.store.part_origin import run_identity
from heatlas.pipeline.store.plan_files import plan_facts, put_listing, read_listing, read_plan
from heatlas.pipeline.store.reader import open_store
from heatlas.pipeline.store.run_file import claim_run, read_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.pipeline.store.status import run_status
from heatlas.pipeline.store.verify import verify_run
from heatlas.workers.samples import Row, Sample, Shard

from .simulated_storage import CURRENT, LOCKS, Fault, Process, SimulatedStore

OUT = "sim://bucket/run"
LAYOUT = StoreLayout((4, 4), metrics=("ebpg",), map_size=4, with_png=False)
FIRST, ADDED, SIZE = 7, 4, 2
FLAKY = frozenset({2, 5})
"""Images that cannot be read at first, and can later: what a retry repairs."""
KINDS = ("driver", "compact", "retry", "append", "late worker", "foreign worker", "reader")
"""What a process may do. `late worker`: of this run, with rows that it computed before anything else happened; `foreign worker`: of a
run that the directory does not belong to."""

EXPECTED = (StorageError, RunError, RunMismatchError, NoRunError)
"""How a process may end: storage failed, the run is not there or not complete, a file belongs to another run. Anything else is a fault of the code
or of this simulation."""


def samples(count: int) -> pa.Table:
    names = [f"img-{number:02d}" for number in range(count)]
    listing = make_listing({"id": pa.array(names), "uri": pa.array([f"/d/{name}" for name in names])}, "sim")
    return listing.set_column(listing.column_names.index("label"), "label", pa.nulls(count, pa.int32()))


def row_of(identity: str, *, repaired: bool, of: float = 1.0) -> Row:
    """The one row of an image; `of` says by which run."""
    number = int(identity[4:])
    sample = Sample(identity, f"/d/{identity}")
    if number in FLAKY and not repaired:
        return Row(sample, "read_error", "gone", seconds=0.0)
    map_ = np.full((4, 4), (number + 1) / 100, np.float32)
    return Row(sample, "ok", None, 4, 4, 0, 0, 0.5, of, map_, {"ebpg": number / 100}, (1,), 1, 0.0, "cpu")


class Simulation:
    """A store and the processes that work on it; `advance` lets one of them make its next request."""

    def __init__(self) -> None:
        SimulatedStore.objects.clear()
        LOCKS.clear()
        self.first = samples(FIRST)
        self.shards = plan_shards(FIRST, SIZE)
        self.fingerprint = {
            "plan": plan_facts(listing_digest(self.first), FIRST, self.shards),
            "model": {"digest": "m"},
        }
        self.processes: list[Process] = []
        self.repaired: set[str] = set()
        """Ids whose repaired row was stored and acknowledged."""
        self.killed = False
        """Whether a process was."""

    # what processes do

    def claim(self) -> str:
        run = claim_run(OUT, self.fingerprint, {}).run
        return run_identity(run["fingerprint"])

    def driver(self) -> str:
        identity = self.claim()
        put_listing(OUT, self.first)
        plan = read_plan(OUT, read_run(OUT))
        self.work(identity, plan.shards, read_listing(OUT, plan))
        return self.conclude()

    def work(self, identity: str, shards: Sequence[Shard], listing: pa.Table | None) -> None:
        assert listing is not None
        done = done_shards(OUT)
        part_summaries(OUT, done)
        sink = ParquetSink(OUT, LAYOUT, identity)
        for shard in shards:
            if shard.index not in done:
                ids = listing["id"].to_pylist()[shard.start : shard.stop]
                sink.commit(shard, [row_of(name, repaired=False) for name in ids])

    def conclude(self) -> str:
        from heatlas.pipeline.explain.explain import concluded

        concluded(OUT)
        return "complete"

    def retry(self) -> str:
        identity = self.claim()
        plan = read_plan(OUT, read_run(OUT))
        listing = read_listing(OUT, plan)
        if listing is None:
            return "nothing"
        again = plan_retry(OUT, plan.shards, listing)
        if again.shards:
            remove(f"{OUT}/_SUCCESS")
        sink = RetrySink(OUT, LAYOUT, identity)
        for shard in again.shards:
            rows = [row_of(sample.id, repaired=True) for sample in again.samples[shard.index]]
            sink.commit(shard, rows)
            self.repaired |= {row.sample.id for row in rows}
        return self.conclude()

    def append(self) -> str:
        identity = self.claim()
        put_listing(OUT, self.first)
        plan = read_plan(OUT, read_run(OUT))
        stored = read_listing(OUT, plan)
        assert stored is not None
        new = samples(FIRST + ADDED)
        known = PlannedSamples(stored, plan.shards, self.first, self.shards, plan)
        if len(stored) < len(new):
            known = with_new(known, new.slice(len(stored)), SIZE)
        known.write(OUT)
        self.work(identity, known.shards, known.listing)
        return self.conclude()

    def compact(self) -> str:
        compact_store(OUT, size_mb=1)
        return "compacted"

    def late_worker(self) -> str:
        identity = run_identity(self.stored_fingerprint())
        names = self.first["id"].to_pylist()
        for shard in self.shards[:2]:
            rows = [row_of(name, repaired=False) for name in names[shard.start : shard.stop]]
            ParquetSink(OUT, LAYOUT, identity).commit(shard, rows)
        return "late"

    def foreign_worker(self) -> str:
        names = self.first["id"].to_pylist()
        shard = self.shards[1]
        rows = [row_of(name, repaired=True, of=666.0) for name in names[shard.start : shard.stop]]
        ParquetSink(OUT, LAYOUT, "another run").commit(shard, rows)
        return "foreign"

    def reader(self) -> str:
        rows = open_store(OUT).table(["id", "logit"]).to_pylist()
        ids = [row["id"] for row in rows]
        assert len(ids) == len(set(ids)), f"read twice: {sorted(ids)}"
        assert all(row["logit"] in (None, 1.0) for row in rows), "read a foreign row"
        return "read"

    def stored_fingerprint(self) -> dict:
        from heatlas.pipeline.store.run_file import stored_fingerprint

        return stored_fingerprint(self.fingerprint)

    # how they go on

    def start(self, kind: str) -> None:
        """Start a process; workers only of a directory that a driver has claimed."""
        if kind.endswith("worker") and f"{OUT[6:]}/_run.json" not in SimulatedStore.objects:
            return
        self.processes.append(Process(kind, getattr(self, kind.replace(" ", "_"))))

    @property
    def running(self) -> list[Process]:
        return [process for process in self.processes if not process.done]

    def advance(self, number: int, fault: Fault = "none") -> None:
        if self.running:
            self.killed = self.killed or fault == "killed"
            self.running[number % len(self.running)].advance(fault)
            self.check_always()

    def settle(self) -> None:
        """Let all processes come to their end, undisturbed."""
        turn = 0
        while self.running:
            self.advance(turn)
            turn += 1

    def end(self) -> None:
        """Kill what runs; threads must not outlive their test."""
        for process in self.running:
            process.advance("killed")
        assert not [process for process in CURRENT.values() if process in self.processes]

    # what must hold

    def check_always(self) -> None:
        """After every request."""
        for process in self.processes:
            if process.error is not None and not isinstance(process.error, EXPECTED):
                raise AssertionError(f"{process.name} failed: {process.error!r}") from process.error
        if f"{OUT[6:]}/_SUCCESS" in SimulatedStore.objects and self.quiet:
            self.check_certificate()

    @property
    def quiet(self) -> bool:
        """Whether nobody is in the middle of something that takes `_SUCCESS` away a moment later."""
        return not self.running

    def check_certificate(self) -> None:
        """The store says that it is concluded: every planned row is there, once, of this run."""
        plan = read_plan(OUT, read_run(OUT))
        if run_status(OUT).success:
            check_complete(OUT, plan.shards, read_listing(OUT, plan))
        else:  # only who was killed may leave an older `_SUCCESS`, and `status` does not believe it
            assert self.killed, "_SUCCESS speaks of another plan"

    def check_at_end(self) -> None:
        """After everything that ran has ended: what one undisturbed command makes of it is whole."""
        self.settle()
        self.check_always()
        foreign = self.foreign_files()
        for name in foreign:  # `verify` and every command name them, and the user moves them away
            assert "parts-" in " ".join(SimulatedStore.objects) or self.refuses(), "a foreign part went unnoticed"
            del SimulatedStore.objects[name]
        self.start("driver")
        self.settle()
        last = self.processes[-1]
        assert last.result == "complete", f"the last driver ended with {last.error!r}"
        compact_store(OUT, size_mb=1)
        found = verify_run(OUT)
        assert found.ok, found.problems
        rows = {row["id"]: row for row in open_store(OUT).table().to_pylist()}
        plan = read_plan(OUT, read_run(OUT))
        assert sorted(rows) == samples(plan.samples)["id"].to_pylist()
        for identity, row in rows.items():
            expected = [row_of(identity, repaired=True)]
            if identity not in self.repaired:
                expected.append(row_of(identity, repaired=False))
            facts = (row["status"], row["logit"], row["ebpg"])
            assert facts in [(one.status, one.logit, one.metrics.get("ebpg")) for one in expected], (
                f"{identity} is {facts}"
            )

    def foreign_files(self) -> list[str]:
        run, done = run_identity(self.stored_fingerprint()), done_shards(OUT)
        return [
            file.uri(OUT)[6:] for file in (*done.files, *done.superseded)
            if any("another run" in text for text in check_part(OUT, file, dict.fromkeys(file.shards, SIZE), run).problems)
        ]  # fmt: skip

    def refuses(self) -> bool:
        try:
            part_summaries(OUT, done_shards(OUT))
        except HeatlasError:
            return True
        return False
