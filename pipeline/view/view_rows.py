"""Load the rows of a store into an in-memory DuckDB, which then can reach nothing else, and answer queries within limits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from ...errors import UsageError
from ..report.classes import Suspicion, suspicion_rule
from ..report.distributions import metric_distributions
from ..report.rows import CONFIDENCE, ReportRows
from ..report.scores import run_scores
from ..store.reader import StoreReader
from ..store.sql import quoted
from ..text import sql_refusal
from .beside import delta_axes, join_beside, shared_metrics, with_own_classes
from .memberships import Memberships, read_memberships
from .row_arrays import Axis, RowArrays

SECONDS = 5.0
"""Longest time of one query in seconds."""
MOST_ROWS = 100_000
"""Most rows of an answer to SQL that a page or a user sends."""
LONGEST_SQL = 20_000
"""Characters."""
MEMORY = "1GB"
"""Limit of DuckDB's memory beyond which a query fails."""
BINS = 26
PLAIN = ("n", "id", "label", "prediction", "target", CONFIDENCE, "status", "object_id")


class ViewRows:
    """The rows of one method, without their maps, as the DuckDB table `items`.

    Columns: `n` (0 to rows - 1, in stored order), `id`, `label`, `prediction`, `target`, the confidence, `status`, every metric,
    `main` (one row per image), `file` and `place` (where the row lies), `correct` and `off_object`; beside a second store those of
    `beside.join_beside`.
    Beside it the tables `queued`, `clustered`, `embedded` and `decided`, by `n` or id, and `folded(id)`, the id in lower case.
    """

    def __init__(self, atlas: StoreReader, method: str | None = None, beside: ViewRows | None = None):
        self.rows = ReportRows.of(atlas, method)
        self.atlas = atlas
        self.method = self.rows.method
        self.class_names = atlas.class_names
        self.total, self.images = self.rows.total, self.rows.images
        self.metrics = self.rows.metrics
        self.rule: Suspicion | None = suspicion_rule(self.rows, run_scores(self.rows, resamples=100))
        self.axes: dict[str, Axis] = _axes(self.rows)
        """Histograms by column."""
        self.memberships: Memberships = read_memberships(self.rows)
        self._connection = self.rows.connection
        self.decided_version = 0
        """Counts changes of the table `decided`."""
        self._lock = threading.Lock()
        self.deltas: tuple[str, ...] = ()
        """Metrics of which the difference to a second store is known."""
        self._build(beside)

    def _build(self, beside: ViewRows | None) -> None:
        connection = self._connection
        _return_memory(connection)
        files = pa.table({"name": [file.name for file in self.atlas.files], "number": range(len(self.atlas.files))})
        connection.register("heatlas_files", files)
        in_order = _is_in_order(connection)
        judged = f"coalesce({self.rule.condition}, false)" if self.rule else "false"
        names = ", ".join(quoted(name) for name in dict.fromkeys((*PLAIN[1:], *self.metrics)))
        number = "row_number() OVER ()" if in_order else "row_number() OVER (ORDER BY number, place)"
        connection.execute(
            f"CREATE TABLE items AS SELECT ({number} - 1)::INTEGER AS n, {names}, main, number AS file, place, draw, "
            "(CASE WHEN label IS NOT NULL AND prediction IS NOT NULL THEN prediction = label END) AS correct, "
            f"(status = 'ok' AND coalesce(prediction = label, false) AND {judged}) AS off_object "
            f"FROM rows JOIN heatlas_files ON md5_number_lower(name) = file {'' if in_order else 'ORDER BY n'}"
        )
        connection.unregister("heatlas_files")
        if _is_view(connection, "rows"):
            connection.execute("DROP VIEW rows")
            connection.execute("DROP TABLE stored")
        else:
            connection.execute("DROP TABLE rows")
        _return_memory(connection)
        if beside is not None:
            self._join(beside)
        connection.execute("CREATE VIEW rows AS SELECT * FROM items")
        self.arrays = RowArrays.read(connection, self.axes)
        self.memberships.load(connection)
        [(are_lower,)] = connection.execute("SELECT coalesce(bool_and(id = lower(id)), true) FROM items").fetchall()
        connection.execute(f"CREATE MACRO folded(text) AS {'text' if are_lower else 'lower(text)'}")
        connection.execute("CREATE TABLE embedded (kind VARCHAR, n INTEGER, x DOUBLE, y DOUBLE)")
        connection.execute("CREATE TABLE decided (id VARCHAR, kind VARCHAR, label_name VARCHAR, who VARCHAR)")
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")

    def _join(self, beside: ViewRows) -> None:
        self.deltas = shared_metrics(self.rows, beside.rows, self.metrics)
        names = ", ".join(
            map(quoted, ("id", "target", "object_id", "prediction", "correct", "main", "status", *self.deltas))
        )
        other = with_own_classes(beside.arrow(f"SELECT {names} FROM items"), self.class_names, beside.class_names)
        join_beside(self._connection, other, self.deltas)
        self.axes |= delta_axes(self._connection, self.deltas)

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def cursor(self, seconds: float = SECONDS) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own to the same tables, interrupted after a time.

        Raises:
            UsageError: If DuckDB refuses what is asked, or it takes too long.
        """
        with self._lock:
            cursor = self._connection.cursor()
        timer = threading.Timer(seconds, cursor.interrupt)
        timer.start()
        try:
            yield cursor
        except duckdb.InterruptException:
            raise UsageError(f"the query took longer than {seconds:g} s and was stopped; narrow it") from None
        except duckdb.Error as error:
            raise UsageError(f"DuckDB refuses the query: {sql_refusal(error)}") from None
        finally:
            timer.cancel()
            cursor.close()

    def ask(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Answer a query of our own as records."""
        with self.cursor() as cursor:
            cursor.execute(query, parameters or None)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def arrow(self, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Answer a query of our own as an Arrow table."""
        with self.cursor() as cursor:
            return cursor.sql(query, params=list(parameters) or None).to_arrow_table()

    def select(self, query: str) -> pa.Table:
        """Answer SQL that a user or a page sent: one SELECT over the tables of this store, in a read-only transaction.

        Raises:
            UsageError: If it is something else than one SELECT, too long, takes longer than 5 s, or has too many rows.
        """
        if len(query) > LONGEST_SQL:
            raise UsageError(f"the query has {len(query):,} characters; at most {LONGEST_SQL:,} are accepted")
        with self.cursor() as cursor:
            statements = cursor.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UsageError("only one SELECT is accepted; write one without a second statement")
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            try:
                body = query.strip().rstrip(";")
                table = cursor.sql(f"SELECT * FROM (\n{body}\n) LIMIT {MOST_ROWS + 1}").to_arrow_table()
            finally:
                with contextlib.suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")
        if len(table) > MOST_ROWS:
            raise UsageError(f"the answer has more than {MOST_ROWS:,} rows; add a LIMIT or aggregate")
        return table

    def set_decided(
        self, records: Sequence[tuple[str, str, str | None, str | None]], ids: Sequence[str] | None
    ) -> None:
        """Replace the current decisions of some images, or of all where `ids` is None."""
        with self._lock:
            cursor = self._connection.cursor()
        try:
            cursor.execute("BEGIN")
            if ids is None:
                cursor.execute("DELETE FROM decided")
            else:
                cursor.execute("DELETE FROM decided WHERE id IN (SELECT unnest(?))", [list(ids)])
            if records:
                columns = [list(column) for column in zip(*records, strict=True)]
                cursor.execute("INSERT INTO decided SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[])", columns)  # fmt: skip
            cursor.execute("COMMIT")
            self.decided_version += 1
        finally:
            cursor.close()

    def add_points(self, kind: str, numbers: np.ndarray, points: np.ndarray) -> None:
        """Put the points `(point, 2)` of an embedding into the table `embedded(kind, n, x, y)`."""
        with self._lock:
            cursor = self._connection.cursor()
        try:
            columns = [numbers.tolist(), points[:, 0].tolist(), points[:, 1].tolist()]
            cursor.execute("INSERT INTO embedded SELECT ?, unnest(?::INTEGER[]), unnest(?::DOUBLE[]), unnest(?::DOUBLE[])", [kind, *columns])  # fmt: skip
        finally:
            cursor.close()


def _axes(rows: ReportRows) -> dict[str, Axis]:
    axes: dict[str, Axis] = {CONFIDENCE: (0.0, 1.0, BINS)}
    for name, drawing in metric_distributions(rows).items():
        axes[name] = (drawing.low, drawing.high, len(drawing.counts))
    return axes


def _is_in_order(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether rows came in the order of their files already, so that they need not be sorted, which takes their memory twice."""
    [(in_order,)] = connection.execute(
        "SELECT coalesce(bool_and(was IS NULL OR was < now), true) FROM (SELECT now, lag(now) OVER () AS was FROM "
        "(SELECT number * (1::HUGEINT << 40) + place AS now FROM rows JOIN heatlas_files ON md5_number_lower(name) = file))"
    ).fetchall()
    return bool(in_order)


def _return_memory(connection: duckdb.DuckDBPyConnection) -> None:
    """Let DuckDB return to the system what loading left: it does so when the limit is set, and not by itself before the next table is made."""
    connection.execute("RESET memory_limit")


def _is_view(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    return bool(connection.execute("SELECT 1 FROM duckdb_views() WHERE view_name = ?", [name]).fetchall())
