"""Order the rows that match a filter, keep recent orders, and count them by histogram bin and by class."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...errors import UsageError, did_you_mean
from ..report.rows import CONFIDENCE
from ..store.sql import quoted
from .filters import RowFilter
from .view_rows import PLAIN, ViewRows

KEPT = 12
"""Orders that are kept, 4 bytes a row each."""
MOST_ROWS = 500
"""Rows in one request."""
MOST_CLASSES = 2_000


class Selections:
    """Questions about the rows that match a filter."""

    def __init__(self, table: ViewRows):
        self.table = table
        self._orders: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._sortable = ("n", "id", "label", "prediction", "draw", *table.axes)

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
        key = (chosen.condition(), sort, descending, session)
        with self._lock:
            if key in self._orders:
                self._orders.move_to_end(key)
                return self._orders[key]
        if sort and sort not in self._sortable:
            raise UsageError(f"cannot sort by {sort!r}{did_you_mean(sort, self._sortable)}; choose {', '.join(self._sortable)}")  # fmt: skip
        by, values = f"{quoted(sort or 'n')} {'DESC' if descending else 'ASC'} NULLS LAST, n", ()
        if not sort and chosen.queue:
            by, values = "(SELECT min(q.rank) FROM queued q WHERE q.queue = ? AND q.n = items.n)", (chosen.queue,)
        where = chosen.condition()
        numbers = self.table.arrow(f"SELECT n FROM items WHERE {where.sql} ORDER BY {by}", [*where.values, *values])
        order = numbers["n"].to_numpy().astype(np.int32)
        with self._lock:
            self._orders[key] = order
            while len(self._orders) > KEPT:
                self._orders.popitem(last=False)
        return order

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
        if not columns:
            return {}
        parts, values = [], []
        for number, name in enumerate(columns):
            if name not in self.table.axes:
                raise UsageError(f"there is no histogram of {name!r}{did_you_mean(name, self.table.axes)}")
            where = chosen.condition(without=name)
            column = quoted(f"bin:{name}")
            parts.append(f"SELECT {number} AS place, {column} AS bin, count(*) AS rows FROM items WHERE {column} IS NOT NULL AND {where.sql} GROUP BY bin")  # fmt: skip
            values += where.values
        counts = {name: [0] * self.table.axes[name][2] for name in columns}
        names = list(columns)
        for row in self.table.ask(" UNION ALL ".join(parts), values):
            counts[names[row["place"]]][row["bin"]] = row["rows"]
        return counts

    def classes(self, chosen: RowFilter) -> list[dict[str, Any]]:
        """Counts by label: rows, correct ones, those off the object, and mean confidence."""
        where = chosen.condition()
        return self.table.ask(
            "SELECT label, count(*) AS rows, count(correct) AS judged, count(*) FILTER (correct) AS correct, "
            f"count(*) FILTER (off_object) AS off_object, avg({CONFIDENCE}) AS confidence FROM items "
            f"WHERE label IS NOT NULL AND {where.sql} GROUP BY label ORDER BY rows DESC, label LIMIT {MOST_CLASSES}", where.values,
        )  # fmt: skip

    def totals(self, chosen: RowFilter) -> dict[str, Any]:
        """Rows that match, and how many of them are correct."""
        where = chosen.condition()
        [row] = self.table.ask(
            "SELECT count(*) AS rows, count(correct) AS judged, count(*) FILTER (correct) AS correct, "
            f"count(*) FILTER (off_object) AS off_object FROM items WHERE {where.sql}", where.values,
        )  # fmt: skip
        return row
