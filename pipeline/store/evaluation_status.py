"""What was added to a store, as data and as text."""

from __future__ import annotations

from typing import Any

from ..storage.location import child
from ..text import counted, shown
from .committed_shards import done_shards, row_totals
from .evaluations import Evaluation, list_evaluations
from .success_file import read_success

CAUSES_SHOWN = 3


def evaluation_records(out: str, planned: int) -> list[dict[str, Any]]:
    """The evaluations of a store, the oldest first.

    Args:
        out: Directory or URI of the store.
        planned: Shards of the run.

    Returns:
        JSON values, as `evaluation_record` gives them.
    """
    return [evaluation_record(out, evaluation, planned) for evaluation in list_evaluations(out)]


def evaluation_record(out: str, evaluation: Evaluation, planned: int) -> dict[str, Any]:
    """How far an evaluation is.

    Returns:
        `name`, `created`, `complete`, `shards` (planned, done), `metrics` (name -> mean, count), `rows`, `statuses`, `causes`
        (status, error, rows, example), `forwards`, `seconds` of all workers together, `bytes`.
    """
    done = done_shards(out, evaluation.folder)
    totals = row_totals(out, done, evaluation.folder)
    nothing = {"mean": None, "count": 0}
    return {
        "name": evaluation.name,
        "created": evaluation.created,
        "complete": len(done) == planned and read_success(child(out, evaluation.folder)) is not None,
        "shards": {"planned": planned, "done": len(done)},
        "metrics": {name: totals["metrics"].get(name, nothing) for name in evaluation.metrics},
        **{key: totals[key] for key in ("rows", "statuses", "causes", "forwards", "seconds", "bytes")},
    }


def evaluation_lines(record: dict[str, Any]) -> list[tuple[str, str]]:
    """A record for people: headings and texts."""
    shards, names = record["shards"], list(record["metrics"])
    statuses = ", ".join(f"{status} {count}" for status, count in record["statuses"].items())
    state = "" if record["complete"] else f", {shards['done']} of {counted(shards['planned'], 'shard')}, not complete"
    lines = [("added", f"{counted(len(names), 'metric')} ({statuses or 'nothing measured'}){state}")]
    for cause in record["causes"][:CAUSES_SHOWN]:
        lines.append(("", f"{cause['rows']} x {cause['status']}: {cause['error']} (such as {shown(cause['example'])})"))
    widest = max(map(len, names))
    for name, value in record["metrics"].items():
        if value["count"]:
            lines.append((name.ljust(widest), f"{value['mean']:.4g}  (mean of {value['count']})"))
    if not record["complete"]:
        lines.append(("resume", f"heatlas evaluate with --metrics {' '.join(names)}"))
    return lines
