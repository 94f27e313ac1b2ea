"""Gather everything that is known about one image: all its rows, reasons of review queues, clusters, and similar explanations."""

from __future__ import annotations

import math
from typing import Any

from ...errors import UsageError
from ..html.texts import figure
from ..report.plain_words import name_of
from ..report.rows import CONFIDENCE
from .view_rows import ViewRows


def image_detail(table: ViewRows, n: int) -> dict[str, Any]:
    """What a page shows beside one image.

    Raises:
        UsageError: If there is no such row.
    """
    rows = table.ask(
        "SELECT * FROM items WHERE id = (SELECT id FROM items WHERE n = ?) ORDER BY main DESC, target NULLS LAST, object_id NULLS FIRST",
        [n],
    )
    row = next((row for row in rows if row["n"] == n), None)
    if row is None:
        raise UsageError(f"there is no row {n}; rows are numbered from 0 to {table.total - 1}")
    queues = table.ask(
        "SELECT DISTINCT queue, rank, reason FROM queued JOIN items USING (n) WHERE id = ? ORDER BY queue", [row["id"]]
    )
    clusters = table.ask("SELECT DISTINCT cluster FROM clustered WHERE n = ?", [n])
    decided = table.ask("SELECT kind, label_name, who FROM decided WHERE id = ?", [row["id"]])
    return {
        "n": n,
        "id": row["id"],
        "label": row["label"],
        "prediction": row["prediction"],
        "status": row["status"],
        "correct": row["correct"],
        "off_object": row["off_object"],
        "targets": [
            {
                "n": other["n"],
                "target": other["target"],
                "object": other["object_id"],
                "confidence": finite(other[CONFIDENCE]),
                "status": other["status"],
            }
            for other in rows
        ],
        "metrics": [
            {"name": name, "title": name_of(name), "value": finite(row[name]), "text": figure(finite(row[name]))}
            for name in table.metrics
        ],
        "queues": queues,
        "clusters": [cluster["cluster"] for cluster in clusters],
        "decisions": decided,
    }


def finite(value: float | None) -> float | None:
    """The number, or None for what JSON cannot say."""
    return value if value is not None and math.isfinite(value) else None
