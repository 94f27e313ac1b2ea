"""One line per row for spreadsheets: ids, classes, scores and metrics, without maps."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import UsageError
from .chosen import Chosen, is_plain

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a text must not begin with, or a spreadsheet computes it (the last four are full-width =, +, -, @)."""
CLASSES = ("label", "prediction", "target")


def write_csv(chosen: Chosen, path: Path) -> int:
    """Write the file: UTF-8, commas, a header, empty cells for null; texts that look like formulas begin with `'`.

    Returns:
        Rows.

    Raises:
        UsageError: If a column was asked for that does not fit in a cell.
    """
    kinds = {field.name: field.type for field in chosen.atlas.schema}
    if chosen.columns is None:
        columns = [name for name, kind in kinds.items() if is_plain(kind)]
    else:
        columns = list(chosen.columns)
        if nested := [name for name in columns if not is_plain(kinds[name])]:
            raise UsageError(f"--columns {nested[0]}: it is {kinds[nested[0]]}, which does not fit in a cell of a CSV file; "
                             "leave it out, or choose --format hf or --format lance")  # fmt: skip
    named = [
        name
        for name in CLASSES
        if chosen.columns is None and chosen.names and name in columns and f"{name}_name" not in columns
    ]
    rows = 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([cell(name) for name in [*columns, *(f"{name}_name" for name in named)]])
        for table in chosen.batches(columns):
            writer.writerows(_lines(table, columns, named, chosen))
            rows += len(table)
    return rows


def cell(value: Any) -> Any:
    """The value as a spreadsheet may see it: numbers as they are, texts never as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _lines(table: pa.Table, columns: list[str], named: list[str], chosen: Chosen) -> Iterator[list[Any]]:
    values = [table[name].to_pylist() for name in columns]
    values += [[chosen.name_of(index) for index in table[name].to_pylist()] for name in named]
    for row in zip(*values, strict=True):
        yield [cell(value) for value in row]
