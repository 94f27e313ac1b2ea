"""Find the rows that match a filter, order them, and count them by histogram bin and by class; recent answers are kept."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...errors import UsageError, did_you_mean
from ..store.sql import quoted
from .filters import Condition, RowFilter
from .recent_arrays import RecentArrays
from .row_arrays import NO_BIN
from .view_rows import PLAIN, ViewRows

KEPT_BYTES = 160_000_000
"""Of row numbers: matches, orders and permutations, 4 bytes a row each."""
MOST_ROWS = 500
"""Rows in one request."""
MOST_CLASSES = 2_000


class Selections:
    """Questions about the rows that match a filter; safe to use from several threads."""

    def __init__(self, table: ViewRows):
        self.table = table
        self._kept = RecentArrays(KEPT_BYTES)
        self._sortable = ("n", "id", "label", "prediction", "draw", *table.axes)

    def matching(self, chosen: RowFilter, without: str = "") -> np.ndarray:
        """Numbers of the rows that match, int32, ascending.

        Args:
            chosen: The filter.
            without: A column whose range is left out.

        Raises:
            UsageError: For a condition that DuckDB refuses.
        """
        where = chosen.condition(without=without)
        return self._kept.get((where, self.table.decided_version), lambda: self._matching(where))

    def order(self, chosen: RowFilter, sort: str = "", *, descending: bool = False, session: str = "") -> np.ndarray:
        """Row numbers in the order asked for, int32; rows without a value come last, ties in stored order.

        Args:
            chosen: The filter.
            sort: A column; empty for the queue's own order where one is chosen, else for stored order.
            descending: Largest first.
            session: Name under which the order is kept as it was when it was first asked for, whatever is decided meanwhile.

        Raises:
            UsageError: For an unknown column, or a condition that DuckDB refuses.
        """
        if sort and sort not in self._sortable:
            raise UsageError(f"cannot sort by {sort!r}{did_you_mean(sort, self._sortable)}; choose {', '.join(self._sortable)}")  # fmt: skip
        key = (chosen.condition(), sort, descending, session or self.table.decided_version)
        return self._kept.get(key, lambda: self._ordered(chosen, sort, descending))

    def position(self, order: np.ndarray, n: int) -> int | None:
        """Where a row stands in an order; None where it does not. Another row of the same image counts where the row itself is not there."""
        places = np.flatnonzero(order == n)
        image = self.table.arrays.image
        if not len(places) and image is not None and n < len(image):
            places = np.flatnonzero(image[order] == image[n])
        return int(places[0]) if len(places) else None

    def records(self, numbers: Sequence[int]) -> pa.Table:
        """The rows of these numbers, in this order, with decisions (`kind`, `new_label`) and without maps."""
        if not len(numbers):
            numbers = [-1]
        listed = ", ".join(str(int(n)) for n in numbers)
        names = ", ".join(f"i.{quoted(name)}" for name in dict.fromkeys((*PLAIN, *self.table.metrics)))
        table = self.table.arrow(
            f"SELECT {names}, i.main, i.correct, i.off_object, d.kind AS decision, d.label_name AS new_label FROM items i "
            "LEFT JOIN (SELECT id, string_agg(kind, ' ') AS kind, max(label_name) AS label_name FROM decided GROUP BY id) d "
            f"ON d.id = i.id WHERE i.n IN ({listed})"
        )
        places = {n: place for place, n in enumerate(table["n"].to_pylist())}
        return table.take(pa.array([places[int(n)] for n in numbers if int(n) in places], pa.int64()))

    def keys(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """`id` and `target` of rows.

        Raises:
            UsageError: If one of them is not there.
        """
        keys: list[dict[str, Any]] = []
        if len(numbers):
            keys = self.table.ask("SELECT n, id, target FROM items WHERE n IN (SELECT unnest(?))", [list(numbers)])
        if missing := set(numbers) - {row["n"] for row in keys}:
            raise UsageError(f"there is no row {min(missing)}")
        return keys

    def histograms(self, chosen: RowFilter, columns: Sequence[str]) -> dict[str, list[int]]:
        """Rows by bin of each column; what its own range excludes is counted too, so that a brush can be moved.

        Raises:
            UsageError: For a column without a histogram.
        """
        for name in columns:
            if name not in self.table.axes:
                raise UsageError(f"there is no histogram of {name!r}{did_you_mean(name, self.table.axes)}")
        counts = {}
        for name in columns:
            where = chosen.condition(without=name)
            key: Hashable = (where, self.table.decided_version, name)
            counts[name] = self._kept.get(key, lambda name=name: self._binned(chosen, name)).tolist()
        return counts

    def classes(self, chosen: RowFilter) -> list[dict[str, Any]]:
        """Counts by label, the most frequent first: rows, correct ones, those off the object, and mean confidence."""
        arrays, rows = self.table.arrays, self.matching(chosen)
        rows = rows[arrays.label_code[rows] >= 0]
        code, is_correct, confidence = arrays.label_code[rows], arrays.is_correct[rows], arrays.confidence[rows]
        count = len(arrays.labels)
        counted = {
            "rows": np.bincount(code, minlength=count),
            "judged": np.bincount(code[is_correct >= 0], minlength=count),
            "correct": np.bincount(code[is_correct == 1], minlength=count),
            "off_object": np.bincount(code[arrays.off_object[rows]], minlength=count),
        }
        known = ~np.isnan(confidence)
        sums = np.bincount(code[known], confidence[known], minlength=count)
        measured = np.bincount(code[known], minlength=count)
        order = np.lexsort((arrays.labels, -counted["rows"]))[: min(MOST_CLASSES, np.count_nonzero(counted["rows"]))]
        return [
            {
                "label": int(arrays.labels[place]),
                **{name: int(values[place]) for name, values in counted.items()},
                "confidence": float(sums[place] / measured[place]) if measured[place] else None,
            }
            for place in order
        ]

    def totals(self, chosen: RowFilter) -> dict[str, Any]:
        """Rows that match, the images that they are of, and how many of them are correct."""
        arrays, rows = self.table.arrays, self.matching(chosen)
        is_correct = arrays.is_correct[rows]
        return {
            "rows": len(rows),
            "images": len(rows) if arrays.image is None else len(np.unique(arrays.image[rows])),
            "judged": int(np.count_nonzero(is_correct >= 0)),
            "correct": int(np.count_nonzero(is_correct == 1)),
            "off_object": int(np.count_nonzero(arrays.off_object[rows])),
        }

    def _matching(self, where: Condition) -> np.ndarray:
        if where.sql in ("true", "main"):
            arrays = self.table.arrays
            return np.flatnonzero(arrays.is_main if where.sql == "main" else np.ones_like(arrays.is_main)).astype(np.int32)  # fmt: skip
        rows = self.table.arrow(f"SELECT n FROM items WHERE {where.sql}", where.values)["n"].to_numpy()
        return np.sort(rows)  # nearly always sorted already

    def _ordered(self, chosen: RowFilter, sort: str, descending: bool) -> np.ndarray:
        if not sort and chosen.queue:
            where = chosen.condition()
            ranked = self.table.arrow(
                f"SELECT n FROM items WHERE {where.sql} ORDER BY (SELECT min(q.rank) FROM queued q WHERE q.queue = ? AND q.n = items.n)",
                [*where.values, chosen.queue],
            )
            return ranked["n"].to_numpy().astype(np.int32)
        rows = self.matching(chosen)
        if sort in ("", "n"):
            return rows[::-1] if descending else rows
        all_rows = self._kept.get(("sorted", sort, descending), lambda: self._sorted(sort, descending))
        is_wanted = np.zeros(len(all_rows), bool)
        is_wanted[rows] = True
        return all_rows[is_wanted[all_rows]]

    def _sorted(self, sort: str, descending: bool) -> np.ndarray:
        """All rows in the order of a column."""
        by = f"{quoted(sort)} {'DESC' if descending else 'ASC'} NULLS LAST, n"
        return self.table.arrow(f"SELECT n FROM items ORDER BY {by}")["n"].to_numpy().astype(np.int32)

    def _binned(self, chosen: RowFilter, name: str) -> np.ndarray:
        bins = self.table.arrays.bins[name][self.matching(chosen, without=name)]
        return np.bincount(bins, minlength=NO_BIN + 1)[: self.table.axes[name][2]]
