"""What a run came to, and its closing summary."""

from __future__ import annotations

from dataclasses import dataclass

from ...engine.metrics.sanity import SANITY
from ..atlas import Atlas, open_atlas
from ..statistics.summary_text import verdicts
from ..store.status import field, totals_lines
from ..store.status_facts import RunStatus
from ..text import counted, duration


@dataclass(frozen=True)
class RunResult:
    """A completed run. Rows, statuses, metrics and forwards are those of the whole store, earlier runs included."""

    out: str
    status: RunStatus
    shards_done: int
    """Shards that this run committed; 0 if everything was done already."""
    seconds: float
    """Wall time of this run, start-up of workers included."""
    deaths: int = 0
    """Workers that were lost."""
    retried: int | None = None
    """Error rows of earlier runs that this run computed again; None if it was not asked to."""
    recovered: int = 0
    """Those of them that are `ok` now."""

    @property
    def rows(self) -> int:
        return self.status.rows

    @property
    def statuses(self) -> dict[str, int]:
        """Rows by status."""
        return self.status.statuses

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of every metric over the rows that have it."""
        return {name: value.mean for name, value in self.status.metrics.items() if value.mean is not None}

    def open(self) -> Atlas:
        """The store, for tables, maps and SQL."""
        return open_atlas(self.out)

    def verdicts(self) -> list[str]:
        """Verdicts of the chance baselines and the sanity check, a sentence each; empty where the run has neither."""
        atlas = self.open()
        if not {"floors", SANITY}.intersection(atlas.schema.names):
            return []
        return verdicts(atlas.summary(resamples=1).to_pylist())

    def summary(self) -> str:
        """For people, ready to print."""
        state = "complete" if self.shards_done or self.retried else "was complete already, nothing to do"
        lines = [f"{self.out}: {state}", *totals_lines(self.status)]
        lines += [field("", sentence) for sentence in self.verdicts()]
        if self.retried:
            lines.append(field("retried", f"{counted(self.retried, 'error row')}, of which {self.recovered} ok now"))
        if self.shards_done:
            deaths = f", {counted(self.deaths, 'worker death')}" if self.deaths else ""
            before = self.status.shards.done - self.shards_done
            earlier = f" ({before} by earlier runs)" if before else ""
            took = f"{duration(self.seconds)} for {counted(self.shards_done, 'shard')}{earlier}{deaths}"
            lines.append(field("time", took))
        lines.append(field("next", f"heatlas show {self.out}"))
        lines.append(field("", f'python -c "import heatlas; print(heatlas.open({self.out!r}).to_pandas())"'))
        return "\n".join(lines)
