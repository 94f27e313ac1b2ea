"""What an evaluation came to, and its closing summary."""

from __future__ import annotations

from dataclasses import dataclass

from ..atlas import Atlas, open_atlas
from ..store.evaluation_status import evaluation_lines
from ..store.status import field
from ..store.status_facts import EvaluationStatus, ShardCounts
from ..text import counted, duration


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics that stand in the store now."""

    out: str
    evaluations: list[EvaluationStatus]
    """Those that hold the metrics asked for."""
    shards: ShardCounts
    """Of the run."""
    shards_done: int
    """Files that this call wrote; 0 if everything was done already."""
    seconds: float
    """Wall time of this call, start-up of workers included."""
    deaths: int = 0
    """Workers that were lost."""

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of every metric over the rows that have it."""
        means = {name: value for evaluation in self.evaluations for name, value in evaluation.metrics.items()}
        return {name: value.mean for name, value in means.items() if value.mean is not None}

    def open(self) -> Atlas:
        """The store with the added columns."""
        return open_atlas(self.out)

    def summary(self) -> str:
        """For people, ready to print."""
        lines = [f"{self.out}: {'evaluated' if self.shards_done else 'nothing to do, the metrics are there'}"]
        lines += [field(*line) for evaluation in self.evaluations for line in evaluation_lines(evaluation)]
        if self.shards_done:
            deaths = f", {counted(self.deaths, 'worker death')}" if self.deaths else ""
            lines.append(field("time", f"{duration(self.seconds)} for {counted(self.shards_done, 'shard')}{deaths}"))
        if missing := self.shards.planned - self.shards.done:
            lines.append(
                field("maps", f"{counted(missing, 'shard')} of the run not explained yet; evaluate again when they are")
            )
        lines.append(field("next", f'python -c "import heatlas; print(heatlas.open({self.out!r}).to_pandas())"'))
        return "\n".join(lines)
