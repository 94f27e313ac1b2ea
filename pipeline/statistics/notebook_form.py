"""A store as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..text import harmless
from .summary_text import number


def atlas_html(uri: str, statuses: Mapping[str, int], summary: Sequence[Mapping[str, Any]]) -> str:
    """HTML of one store: rows by status, and a table of the metrics' means per image.

    Args:
        uri: Of the store.
        statuses: Rows by status.
        summary: Records of `score_summary`, of the whole run.
    """
    rows = ", ".join(f"{escape(name)} {count:,}" for name, count in statuses.items())
    lines = "".join(
        f"<tr><td>{escape(record['metric'])}</td><td>{number(record['mean'])}</td><td>{record['n']:,}</td></tr>"
        for record in summary
        if record["n"]
    )
    table = f"<table><tr><th>metric</th><th>mean per image</th><th>images</th></tr>{lines}</table>" if lines else ""
    return f"<p><b>{escape(harmless(uri))}</b>: {sum(statuses.values()):,} rows ({rows})</p>{table}"
