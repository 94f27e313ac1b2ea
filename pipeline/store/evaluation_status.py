"""What was added to a store, as data and as text."""

from __future__ import annotations

from ..storage.location import child
from ..text import counted, shown
from .committed_shards import done_shards, row_totals
from .evaluations import Evaluation, list_evaluations
from .status_facts import EvaluationStatus, MetricMean, ShardCounts, causes_of, metric_means
from .success_file import read_success

CAUSES_SHOWN = 3


def evaluation_statuses(out: str, planned: int) -> list[EvaluationStatus]:
    """The evaluations of a store, the oldest first.

    Args:
        out: Directory or URI of the store.
        planned: Shards of the run.
    """
    return [status_of_evaluation(out, evaluation, planned) for evaluation in list_evaluations(out)]


def status_of_evaluation(out: str, evaluation: Evaluation, planned: int) -> EvaluationStatus:
    """How far an evaluation is."""
    done = done_shards(out, evaluation.folder)
    totals = row_totals(out, done, evaluation.folder)
    means, nothing = metric_means(totals["metrics"]), MetricMean(None, 0)
    return EvaluationStatus(
        name=evaluation.name,
        created=evaluation.created,
        complete=len(done) == planned and read_success(child(out, evaluation.folder)) is not None,
        shards=ShardCounts(planned, len(done)),
        metrics={name: means.get(name, nothing) for name in evaluation.metrics},
        rows=totals["rows"],
        statuses=totals["statuses"],
        causes=causes_of(totals["causes"]),
        forwards=totals["forwards"],
        seconds=totals["seconds"],
        bytes=totals["bytes"],
    )


def evaluation_lines(evaluation: EvaluationStatus) -> list[tuple[str, str]]:
    """It for people: headings and texts."""
    shards, names = evaluation.shards, list(evaluation.metrics)
    statuses = ", ".join(f"{status} {count}" for status, count in evaluation.statuses.items())
    state = "" if evaluation.complete else f", {shards.done} of {counted(shards.planned, 'shard')}, not complete"
    lines = [("added", f"{counted(len(names), 'metric')} ({statuses or 'nothing measured'}){state}")]
    for cause in evaluation.causes[:CAUSES_SHOWN]:
        lines.append(("", f"{cause.rows} x {cause.status}: {cause.error} (such as {shown(cause.example)})"))
    widest = max(map(len, names))
    for name, value in evaluation.metrics.items():
        if value.mean is not None:
            lines.append((name.ljust(widest), f"{value.mean:.4g}  (mean of {value.count})"))
    if not evaluation.complete:
        lines.append(("resume", f"heatlas evaluate with --metrics {' '.join(names)}"))
    return lines
