"""How far a run is, from one listing, the footers of its parts and `_run.json`; as data and as text."""

from __future__ import annotations

from ...errors import shortened
from ...statuses import RETRYABLE
from ..settings.imported_runs import command_of
from ..text import counted, duration, shown
from .committed_shards import done_shards, row_totals
from .evaluation_status import evaluation_lines, evaluation_statuses
from .plan_files import read_plan
from .run_file import read_run
from .status_facts import RunStatus, ShardCounts, causes_of, metric_means
from .success_file import read_success

CAUSES_SHOWN = 8
LONGEST_CAUSE = 110
SHARDS_SHOWN = 12


def run_status(out: str) -> RunStatus:
    """What is done and what is not.

    Raises:
        StorageError: If `out` is not a store, or its files cannot be read.
    """
    run = read_run(out)
    plan = read_plan(out, run)
    planned = len(plan.shards)
    done = done_shards(out)
    undone = [index for index in range(planned) if index not in done]
    totals = row_totals(out, done)
    return RunStatus(
        out=out,
        complete=not undone,
        success=_concluded(out, plan.samples),
        shards=ShardCounts(planned, planned - len(undone)),
        undone=undone,
        samples=plan.samples,
        samples_done=totals["samples"],
        rows=totals["rows"],
        statuses=totals["statuses"],
        metrics=metric_means(totals["metrics"]),
        forwards=totals["forwards"],
        seconds=totals["seconds"],
        bytes=totals["bytes"],
        causes=causes_of(totals["causes"]),
        retryable=sum(count for status, count in totals["statuses"].items() if status in RETRYABLE),
        evaluations=evaluation_statuses(out, planned),
        created=run["created"],
        settings=run["settings"],
    )


def _concluded(out: str, planned: int) -> bool:
    """Whether `_SUCCESS` is there and speaks of the plan as it is: a command that was killed while it appended may have left an older one."""
    success = read_success(out)
    return success is not None and success.get("samples", planned) == planned


def status_text(status: RunStatus) -> str:
    """The status for people, ready to print."""
    shards = status.shards
    state = "complete" if status.complete and status.success else f"{counted(len(status.undone), 'shard')} undone"
    if status.complete and not status.success:
        state = "all shards done but not concluded"
    lines = [f"{status.out}: {state} ({shards.done} of {shards.planned} shards)", *totals_lines(status)]
    if status.undone:
        named = ", ".join(map(str, status.undone[:SHARDS_SHOWN]))
        more = len(status.undone) - SHARDS_SHOWN
        lines.append(field("undone", named + (f" and {more} more" if more > 0 else "")))
    if not (status.complete and status.success):
        lines.append(field("resume", f"run the same `{command_of(status.settings)}` command again"))
    lines += [field(*line) for evaluation in status.evaluations for line in evaluation_lines(evaluation)]
    if status.retryable:
        rows = counted(status.retryable, "error row")
        lines.append(field("retry", f"the same command with --retry-errors tries {rows} again"))
    return "\n".join(lines)


def totals_lines(status: RunStatus) -> list[str]:
    """Rows, errors by status and cause, mean metrics and forwards, one fact a line."""
    statuses = sorted(status.statuses.items(), key=lambda item: (item[0] != "ok", item[0]))
    lines = [field("rows", rows_text(status))]
    if statuses:
        lines.append(field("status", ", ".join(f"{name} {count}" for name, count in statuses)))
    for cause in status.causes[:CAUSES_SHOWN]:
        lines.append(
            field(
                "",
                f"{cause.rows} x {cause.status}: {one_line(cause.error)} (such as {shown(cause.example)})",
            )
        )
    if len(status.causes) > CAUSES_SHOWN:
        lines.append(
            field("", f"and {len(status.causes) - CAUSES_SHOWN} more causes: see the columns status and error")
        )
    kind = "" if status.rows == status.samples_done else " rows, all targets"
    for name, value in status.metrics.items():
        if value.mean is not None:
            lines.append(field(name, f"{value.mean:.4g}  (mean of {value.count}{kind})"))
    if kind and status.metrics:
        lines.append(field("", "means per image: `heatlas summary`"))
    if status.rows:
        each = status.forwards / status.rows
        lines.append(field("forwards", f"{status.forwards:,}  ({each:,.0f} per row)"))
        lines.append(
            field("work", f"{duration(status.seconds)} of all workers together, {status.bytes / 1e6:,.1f} MB stored")
        )
    return lines


def rows_text(status: RunStatus) -> str:
    """`200 of 300 samples`; where samples have several targets `500, of 200 of 300 samples`."""
    planned = counted(status.samples, "sample")
    several = f", of {status.samples_done}" if status.rows != status.samples_done else ""
    return f"{status.rows}{several} of {planned}"


def field(name: str, text: str) -> str:
    return f"  {name:<8}  {text}"


def one_line(text: str | None) -> str:
    """An error text as one line of a terminal."""
    return shortened(shown(" ".join((text or "no text").split())), LONGEST_CAUSE)
