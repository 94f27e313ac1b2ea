"""`heatlas metrics`: every metric with its definition id, as records and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...engine.metrics import METRIC_PRESETS, METRICS
from ...engine.metrics.protocol import Metric
from ...engine.metrics.sanity import SANITY_METRIC
from ..explain.fingerprint import metric_facts

HEADINGS = ("metric", "unit", "range", "better", "needs", "forwards", "explanations", "preset")


def metric_records() -> list[dict[str, Any]]:
    """Every metric, in the order of the registry.

    Returns:
        JSON values: `name`, what `metric_facts` says, `needs`, `forwards` and `explanations` (per image at most, when measured
        alone), `presets` that hold it, and `setting`, by which it is asked for where no preset holds it.
    """
    records = [record(metric) for metric in METRICS.values()]
    return [*records, {**record(SANITY_METRIC), "explanations": 1, "setting": "sanity"}]


def record(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        **metric_facts(metric.name),
        "needs": metric.needs,
        "forwards": metric.forwards,
        "explanations": metric.explanations,
        "presets": [preset for preset, names in METRIC_PRESETS.items() if metric.name in names],
        "setting": "metrics",
    }


def format_metric_table(records: Sequence[dict[str, Any]]) -> str:
    """The records for people: one metric a line."""
    rows = [HEADINGS, *map(cells, records)]
    wide = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, wide, strict=True)).rstrip() for row in rows]
    return "\n".join([
        *lines,
        "",
        "better: the end that is better. needs: map (nothing else), model (forwards through it), truth (boxes or masks).",
        "forwards, explanations: per image beside the map's own, when measured alone; metrics share those they have in common.",
        "preset: the smallest that holds it (full holds standard, standard holds paper); sanity is a setting of its own.",
        "`heatlas metrics --json` gives formula, baseline and source of each; docs/metrics.md explains them.",
    ])  # fmt: skip


def cells(record: dict[str, Any]) -> tuple[str, ...]:
    low, high = record["range"]
    return (
        record["definition"],
        record["unit"],
        f"{end(low)} to {end(high)}",
        record["better"],
        record["needs"],
        str(record["forwards"]),
        str(record["explanations"]),
        record["presets"][0] if record["presets"] else f"--{record['setting']} N",
    )


def end(limit: float | str) -> str:
    return limit if isinstance(limit, str) else f"{limit:g}"
