"""Write the current decisions as a table for people and other programs; `read_decision_file` reads it back."""

from __future__ import annotations

import io
import json
import os

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ...errors import UsageError
from ..storage.atomic_write import put
from .current import Decisions

FORMATS = (".parquet", ".csv", ".jsonl")


def write_decisions(decisions: Decisions, to: str) -> str:
    """Write the current decisions to a path or URI; masks as run lengths in JSON where the format has no structs.

    Raises:
        UsageError: For another ending than `FORMATS`.
        StorageError: If the file cannot be written.
    """
    ending, table, buffer = os.path.splitext(to)[1].lower(), decisions.table(), io.BytesIO()
    if ending not in FORMATS:
        raise UsageError(f"cannot tell the format of {to!r}; let it end in {', '.join(FORMATS)}")
    if ending == ".parquet":
        pq.write_table(table, buffer, compression="zstd")
    elif ending == ".jsonl":
        rows = [{**row, "when": row["when"].isoformat()} for row in table.to_pylist()]
        buffer.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    else:
        masks = [None if mask is None else json.dumps(mask) for mask in table["mask"].to_pylist()]
        times = [when.isoformat() for when in table["when"].to_pylist()]
        for name, values in (("mask", masks), ("when", times)):
            table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
        pyarrow.csv.write_csv(table, buffer)
    put(to, buffer.getvalue())
    return to
