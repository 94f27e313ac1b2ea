"""Rows about single objects of an image: how they are told apart, and which of them stands for its class where one row is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

OBJECT = "object_id"
LARGEST = "001"
"""Of the objects of a class in an image."""


def one_object(schema: pa.Schema) -> str:
    """SQL condition: rows about whole classes, and of a class's objects the largest."""
    return f"({OBJECT} IS NULL OR {OBJECT} = '{LARGEST}')" if OBJECT in schema.names else "true"


def object_order(schema: pa.Schema) -> str:
    """What follows in SQL's ORDER BY after `target`: whole classes first, then the larger objects."""
    return f", {OBJECT} NULLS FIRST" if OBJECT in schema.names else ""


def object_text(row: Mapping[str, Any]) -> str:
    """`, object 002` behind a class name; nothing for a row about the whole class."""
    return f", object {row[OBJECT]}" if row.get(OBJECT) is not None else ""


def row_choice(schema: pa.Schema, target: int | None, object_id: str | None) -> tuple[str, str, dict[str, Any]]:
    """Which of an image's rows are meant: as a SQL condition, in words (none where all are), and the condition's parameters."""
    conditions, said, chosen = ["true"], [], dict[str, Any]()
    if target is not None:
        conditions.append("target = $target")
        said.append(f"target {target}")
        chosen["target"] = target
    if object_id is not None:
        conditions.append(f"{OBJECT} = $object_id" if OBJECT in schema.names else "$object_id IS NULL")
        said.append(f"object {object_id}")
        chosen["object_id"] = object_id
    return " AND ".join(conditions), " and ".join(said), chosen
