"""Put beside each row what a second store says of the same image: prediction, correctness, and how its metrics differ."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from ..report.rows import CONFIDENCE, ReportRows
from ..store.sql import quoted
from .row_arrays import Axis

DELTA = "delta_"
"""Begins the columns that say how much larger a value is in the second store, for the same image and explained class."""
RELATIONS = {
    "same prediction": "other_prediction = prediction",
    "other prediction": "other_there AND other_prediction IS DISTINCT FROM prediction",
    "both correct": "correct AND other_correct",
    "only this one correct": "correct AND other_correct = false",
    "only the second correct": "correct = false AND other_correct",
    "both wrong": "correct = false AND other_correct = false",
    "not in the second": "NOT other_there",
}
"""Conditions over `items` by the name of a choice."""
UNKNOWN_CLASS = -1
BINS = 26
LEAST_REACH = 1e-6
"""Of an axis of differences that are all 0."""


def shared_metrics(own: ReportRows, other: ReportRows, taken: Sequence[str]) -> tuple[str, ...]:
    """The confidence and the metrics that both stores have by one definition, and whose difference has a free name."""
    both = [name for name in own.metrics if name in other.metrics]
    same = [name for name in both if own.fact(name).get("definition") == other.fact(name).get("definition")]
    return tuple(name for name in (CONFIDENCE, *same) if DELTA + name not in taken)


def with_own_classes(other: pa.Table, own_names: Sequence[str], other_names: Sequence[str]) -> pa.Table:
    """The second store's rows with its class indices replaced by those of the same names in the first.

    Args:
        other: With `target` and `prediction` as indices of the second store.
        own_names: Class names of the first store.
        other_names: Of the second; where one of them names none, indices are taken as they are.
    """
    for column in ("target", "prediction"):
        indices = other[column]
        if own_names and other_names:
            places = {name: place for place, name in enumerate(own_names)}
            new = np.array([places.get(name, UNKNOWN_CLASS) for name in other_names], np.int32)
            old = indices.fill_null(0).to_numpy().clip(0, len(new) - 1)
            mask = indices.is_null().combine_chunks().to_numpy(zero_copy_only=False)
            indices = pa.array(new[old], pa.int32(), mask=mask)
        other = other.set_column(other.column_names.index(column), column, pa.chunked_array(indices))
    return other


def join_beside(connection: duckdb.DuckDBPyConnection, other: pa.Table, metrics: Sequence[str]) -> None:
    """Add `other_there`, `other_prediction`, `other_correct` and a difference per metric to the table `items`.

    Args:
        connection: With the table `items`; its rows keep their order.
        other: `id, target, object_id, prediction, correct, main` and the metrics.
        metrics: Of `shared_metrics`.
    """
    connection.register("heatlas_other", other)
    deltas = ", ".join(f"e.{quoted(name)} - i.{quoted(name)} AS {quoted(DELTA + name)}" for name in metrics)
    connection.execute(
        "CREATE TABLE items_beside AS SELECT i.*, m.id IS NOT NULL AS other_there, m.prediction AS other_prediction, "
        f"m.correct AS other_correct, {deltas} FROM items i LEFT JOIN (SELECT * FROM heatlas_other WHERE main) m ON i.id = m.id "
        "LEFT JOIN (SELECT * FROM heatlas_other WHERE status = 'ok') e ON i.id = e.id AND i.target = e.target AND i.object_id IS NOT DISTINCT FROM e.object_id ORDER BY i.n"
    )
    connection.unregister("heatlas_other")
    connection.execute("DROP TABLE items")
    connection.execute("ALTER TABLE items_beside RENAME TO items")


def delta_axes(connection: duckdb.DuckDBPyConnection, metrics: Sequence[str]) -> dict[str, Axis]:
    """An axis for each difference, as far below 0 as above; none where no image can be compared."""
    axes: dict[str, Axis] = {}
    for name in metrics:
        column = quoted(DELTA + name)
        [(reach,)] = connection.execute(f"SELECT quantile_cont(abs({column}), 0.995) FROM items WHERE isfinite({column})").fetchall()  # fmt: skip
        if reach is not None:
            axes[DELTA + name] = (-max(reach, LEAST_REACH), max(reach, LEAST_REACH), BINS)
    return axes
