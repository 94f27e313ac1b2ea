"""Columns of the view's rows as NumPy arrays by row number, from which histograms and classes are counted without SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..report.rows import CONFIDENCE
from ..store.sql import quoted

NO_BIN = 255
"""Where a row has no value."""
UNKNOWN = -1
AT_ONCE = 8
"""Columns that are binned in one query."""
Axis = tuple[float, float, int]
"""Where an axis begins, where it ends, and how many bins it has, at most 254."""


@dataclass(frozen=True, eq=False)
class RowArrays:
    """One value per row of `items`, in the order of `n`; a million rows take 15 MB and one more for each histogram."""

    is_main: Bool[np.ndarray, " row"]
    label_code: Int[np.ndarray, " row"]
    """Place of the row's label in `labels`; `UNKNOWN` for none."""
    labels: Int[np.ndarray, " label"]
    """The labels that occur, ascending."""
    is_correct: Int[np.ndarray, " row"]
    """1, 0, or `UNKNOWN` where it cannot be judged."""
    off_object: Bool[np.ndarray, " row"]
    confidence: Float[np.ndarray, " row"]
    """NaN for none."""
    image: Int[np.ndarray, " row"] | None
    """Number of the main row of the same image; None where every image has one row."""
    bins: Mapping[str, UInt8[np.ndarray, " row"]]
    """By column, the bin of its histogram in which the value lies; `NO_BIN` for none."""

    @classmethod
    def read(cls, connection: duckdb.DuckDBPyConnection, axes: Mapping[str, Axis]) -> RowArrays:
        """Read them from the table `items`, whose rows stand in the order of `n`."""
        facts = connection.sql(
            f"SELECT main, label, coalesce(correct::TINYINT, {UNKNOWN})::TINYINT AS correct, off_object, {CONFIDENCE} AS confidence "
            "FROM items"
        ).to_arrow_table()  # fmt: skip
        labels, codes = np.unique(facts["label"].fill_null(UNKNOWN).to_numpy(), return_inverse=True)
        shift = int(len(labels) > 0 and labels[0] == UNKNOWN)
        return cls(
            is_main=facts["main"].to_numpy(zero_copy_only=False).astype(bool),
            label_code=(codes - shift).astype(np.int32), labels=labels[shift:],
            is_correct=facts["correct"].to_numpy().astype(np.int8),
            off_object=facts["off_object"].to_numpy(zero_copy_only=False).astype(bool),
            confidence=facts["confidence"].to_numpy(zero_copy_only=False).astype(np.float64),
            image=_images(connection, facts["main"].to_numpy(zero_copy_only=False).astype(bool)),
            bins=_binned(connection, axes),
        )  # fmt: skip


def _images(connection: duckdb.DuckDBPyConnection, is_main: np.ndarray) -> np.ndarray | None:
    if is_main.all():
        return None
    pairs = connection.sql(
        "SELECT i.n AS n, m.n AS main FROM items i JOIN items m ON i.id = m.id WHERE NOT i.main AND m.main"
    ).to_arrow_table()
    image = np.arange(len(is_main), dtype=np.int32)
    image[pairs["n"].to_numpy()] = pairs["main"].to_numpy()
    return image


def _binned(connection: duckdb.DuckDBPyConnection, axes: Mapping[str, Axis]) -> dict[str, np.ndarray]:
    names, bins = list(axes), {}
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        listed = ", ".join(f"{_bin_sql(name, *axes[name])} AS {quoted(name)}" for name in some)
        table = connection.sql(f"SELECT {listed} FROM items").to_arrow_table()
        bins |= {name: table[name].to_numpy() for name in some}
    return bins


def _bin_sql(name: str, low: float, high: float, bins: int) -> str:
    """The bin of a value, values beyond the axis in its outermost bins."""
    width, column = (high - low) or 1.0, quoted(name)
    inside = f"least(greatest(floor(({column} - {low!r}) / {width!r} * {bins}), 0), {bins - 1})"
    # least and greatest pass over nulls, so that a row without a value would stand in the first bin
    return f"(CASE WHEN {column} IS NULL OR isnan({column}) THEN {NO_BIN} ELSE {inside} END)::UTINYINT"
