"""Columns that stores of earlier versions call otherwise; readers see today's names, whatever the files say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

RENAMED_COLUMNS = {"score": "confidence"}
"""Today's names by those of stores before heatlas 0.3."""


def name_now(name: str, names: Iterable[str]) -> str:
    """What readers call a column of a file with the columns `names`."""
    now = RENAMED_COLUMNS.get(name, name)
    return name if now in names else now


def names_in_file(columns: Sequence[str] | None, names: Sequence[str]) -> list[str] | None:
    """The columns asked for, as a file with the columns `names` calls them; None asks for all and stays None."""
    if columns is None:
        return None
    before = {now: old for old, now in RENAMED_COLUMNS.items() if now not in names and old in names}
    return [before.get(column, column) for column in columns]


def renamed_table(table: pa.Table) -> pa.Table:
    """The table under today's names, with its metadata."""
    names = [name_now(name, table.column_names) for name in table.column_names]
    if names == table.column_names:
        return table
    return table.rename_columns(names).replace_schema_metadata(table.schema.metadata)


def renamed_schema(schema: pa.Schema) -> pa.Schema:
    """The schema under today's names, with its metadata."""
    fields = [field.with_name(name_now(field.name, schema.names)) for field in schema]
    return pa.schema(fields, schema.metadata)
