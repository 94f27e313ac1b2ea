"""Columns that look like labels in a file without a column `label`: what to say of them. Nothing is taken for a label here."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

USUAL = frozenset(
    {
        "labels",
        "class",
        "classes",
        "class_name",
        "class_id",
        "category",
        "category_id",
        "target",
        "targets",
        "fine_label",
    }
)
"""Other usual names of a column with labels."""


def label_notes(
    mapping: Mapping[str, str], present: Mapping[str, str], header: Sequence[str], others: Mapping[str, pa.ChunkedArray]
) -> list[str]:
    """What the user should know of a file without a label column.

    Args:
        mapping: Names in the file by our names.
        present: Those that the file has.
        header: All columns of the file.
        others: The data set's own columns, of plain types.
    """
    if "label" in present or mapping.get("label", "label") != "label":
        return []
    if near := [name for name in header if name.strip().casefold() in USUAL and name not in present.values()]:
        return [f"there is no column 'label', so the images have no labels; if {near[0]!r} has them, say --columns.label {near[0]!r}"]  # fmt: skip
    for what, is_one in (("one-hot labels", _is_zero_or_one), ("class probabilities", _is_share)):
        columns = {name: column.cast(pa.float64()) for name, column in others.items() if is_one(column)}
        if len(columns) > 1 and _add_up_to_one(list(columns.values())):
            few = ", ".join(map(repr, list(columns)[:3])) + (", ..." if len(columns) > 3 else "")
            return [f"there is no column 'label', so the images have no labels; {few} look like {what}: write the class into one column"]  # fmt: skip
    return []


def _add_up_to_one(columns: Sequence[pa.ChunkedArray]) -> bool:
    total, *rest = columns
    for column in rest:
        total = pc.add(total, column)
    return bool(pc.all(pc.less(pc.abs(pc.subtract(total, 1.0)), 1e-3)).as_py())


def _is_share(column: pa.ChunkedArray) -> bool:
    if column.null_count or not pa.types.is_floating(column.type):
        return False
    return bool(pc.all(pc.and_(pc.greater_equal(column, 0.0), pc.less_equal(column, 1.0))).as_py())


def _is_zero_or_one(column: pa.ChunkedArray) -> bool:
    if column.null_count or pa.types.is_boolean(column.type):
        return not column.null_count
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return False
    return bool(pc.all(pc.is_in(column.cast(pa.float64()), pa.array([0.0, 1.0]))).as_py())
