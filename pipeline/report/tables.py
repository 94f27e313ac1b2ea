"""The table of rows: those that the page shows, and an even sample of the rest up to a limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .plain_words import FAITHFULNESS, LOCALISATION
from .rows import ReportRows

ROWS = 400
COLUMNS = 8
PREFERRED = ("ebpg", "miou", "border_share", "drop_pct", "insertion_auc", "deletion_auc", "label_overlap", "top_area")


@dataclass(frozen=True)
class RowTable:
    """What the table shows."""

    rows: list[dict[str, Any]]
    metrics: list[str]
    complete: bool
    statuses: list[str]
    classes: list[tuple[int, str]]


def row_table(rows: ReportRows, shown: Iterable[Mapping[str, Any]], limit: int = ROWS) -> RowTable:
    """Choose rows.

    Args:
        rows: The rows of the report.
        shown: Rows that stand elsewhere on the page, which come first where not all have room.
        limit: Rows at most.
    """
    metrics = columns_of(rows)
    ids = list(dict.fromkeys(row["id"] for row in shown))[:limit]
    marks = ", ".join("?" for _ in ids) or "NULL"
    records = rows.ask(
        f"SELECT * FROM (SELECT * FROM rows WHERE main ORDER BY id IN ({marks}) DESC, draw LIMIT {int(limit)}) ORDER BY id", ids
    )  # fmt: skip
    classes = sorted(
        {record[name] for record in records for name in ("label", "prediction") if record[name] is not None}
    )
    return RowTable(
        records, metrics, len(records) == rows.images, sorted({record["status"] for record in records}),
        [(index, rows.class_name(index)) for index in classes],
    )  # fmt: skip


def columns_of(rows: ReportRows) -> list[str]:
    """The metrics with a column: the telling ones first."""
    order = dict.fromkeys((*PREFERRED, *LOCALISATION, *FAITHFULNESS, *rows.metrics))
    return [name for name in order if name in rows.metrics][:COLUMNS]
