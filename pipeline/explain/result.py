"""What a run came to, and its closing summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from ...engine.metrics.sanity import SANITY
from ..atlas import Atlas, open_atlas
from ..statistics.summary_text import verdicts
from ..store.status import field, totals_lines
from ..store.status_facts import RunStatus
from ..text import counted, duration

BESIDE = ("decoding", "pictures", "storing")
"""Stages that threads do beside the others."""
SHOWN = 0.005
"""Least share of the workers' time that is told."""
TOO_LONG = 0.2
"""Share of their time above which waiting for decoded images deserves advice."""


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
    stages: Mapping[str, float] = dataclass_field(default_factory=dict)
    """Seconds of this run's workers by stage of the work (`engine.time_spent.STAGES`); decoding goes on beside the others."""
    worked: float = 0.0
    """Seconds of this run's workers on shards that they committed."""
    padded: int = 0
    """Rows of this run's forwards that held nothing."""

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
            lines += time_lines(self.stages, self.worked, self.padded)
        lines.append(field("next", f"heatlas show {self.out}"))
        lines.append(field("", f'python -c "import heatlas; print(heatlas.open({self.out!r}).to_pandas())"'))
        return "\n".join(lines)


def time_lines(stages: Mapping[str, float], worked: float, padded: int) -> list[str]:
    """Where the workers' time went, in shares, the largest first; and advice where they wait for images.

    Args:
        stages: Seconds by stage; decoding, pictures and the storing of earlier shards go on in threads beside the others.
        worked: All of the workers' seconds.
        padded: Rows of forwards that held nothing.
    """
    if worked <= 0:
        return []
    own = {name: seconds / worked for name, seconds in stages.items() if name not in BESIDE}
    own["other"] = max(0.0, 1 - sum(own.values()))
    told = [f"{name} {share:.0%}" for name, share in sorted(own.items(), key=lambda item: -item[1]) if share >= SHOWN]
    shares = [f"{name} {stages[name] / worked:.0%}" for name in BESIDE if stages.get(name, 0) >= SHOWN * worked]
    listed = " and ".join([", ".join(shares[:-1]), shares[-1]] if shares[1:] else shares)
    beside = f"; {listed} beside it" if shares else ""
    empty = f"; {padded:,} rows of padding" if padded else ""
    lines = [field("spent on", ", ".join(told) + beside + empty)]
    if own.get("waiting", 0) > TOO_LONG:
        advice = "workers wait for decoded images: give each more CPUs (--cpus-per-worker), or store smaller files nearer to them"
        lines.append(field("", advice))
    return lines
