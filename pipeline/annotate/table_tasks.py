"""Write suggestions as a table with an empty column `decision`, and read it back filled in: for people without a tool."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ..decisions.decision_file import rows_of_file
from .suggestion import RELABEL, Answer, Suggestion

COLUMNS = ("id", "suggestion_id", "suggestion", "decision", "label", "suggested", "priority", "reason", "uri", "mask")


def table_bytes(suggestions: Sequence[Suggestion], ending: str) -> bytes:
    """The file: one row per suggestion; `mask` is run lengths as JSON.

    Args:
        suggestions: In any order.
        ending: `.csv` or `.parquet`.
    """
    values = {
        "id": [it.id for it in suggestions], "suggestion_id": [it.suggestion_id for it in suggestions],
        "suggestion": [it.kind for it in suggestions], "decision": [None] * len(suggestions), "label": [it.label for it in suggestions],
        "suggested": [it.suggested for it in suggestions], "priority": [it.priority for it in suggestions],
        "reason": [it.reason for it in suggestions], "uri": [it.uri for it in suggestions],
        "mask": [None if it.mask is None else json.dumps(it.mask) for it in suggestions],
    }  # fmt: skip
    schema = pa.schema([(name, pa.float64() if name == "priority" else pa.string()) for name in COLUMNS])
    table, buffer = pa.table(values, schema=schema), io.BytesIO()
    if ending == ".parquet":
        pq.write_table(table, buffer, compression="zstd")
    else:
        pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def read_table_answers(uri: str) -> list[Answer]:
    """Rows whose decision is filled in: a kind, `keep`, `relabel` (to what is suggested) or `relabel:CLASS`; a mask only where it is about one.

    Raises:
        UsageError: For a file that cannot be read, or lacks the columns `id` and `decision`.
    """
    answers = []
    for row, mask in rows_of_file(uri, ("id", "decision")):
        said = str(row["decision"] or "").strip()
        if not said:
            continue
        called = {"keep": "ok", "relabel": f"{RELABEL}{row.get('suggested') or ''}"}.get(said, said)
        about_mask = called in ("shortcut", "core") and row.get("mask") not in (None, "")
        answers.append(
            Answer(str(row["id"]), called, mask() if about_mask else None, who=row.get("who") or None,
                   suggestion_id=row.get("suggestion_id") or None, by_person=True)
        )  # fmt: skip
    return answers
