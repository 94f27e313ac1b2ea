"""The rows that a report is about, without their maps, as one table to ask in SQL.

Read from the store once: a run of a million images has thousands of files, and a report asks dozens of questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from ...engine.metric_units import CLASS_INDEX
from ...errors import UsageError, did_you_mean
from ...statuses import OK
from ..statistics.metric_summary import chance_columns
from ..statistics.one_row_per_image import ORDER
from ..store.object_rows import OBJECT
from ..store.reader import StoreReader
from ..store.schema import metric_columns
from ..store.sql import PARTS, literal, quoted, reading_parts
from ..text import class_name

CONFIDENCE = "confidence"
"""The column that holds the model's confidence in the explained class."""
PLAIN = ("id", "label", "prediction", "target", CONFIDENCE, "status", OBJECT)
CHANCE_OF = "ebpg"
CHANCE = "chance_ebpg"
"""The column that holds what a random map has on the object."""
BLOCK = 256
"""Rows of a file that are read together where maps are sampled."""
BATCH = 50_000
"""Rows that come from the files at once."""

RowKey = tuple[str, Any, Any]
"""Id, explained class and object of a row of one method."""


@dataclass(frozen=True)
class ReportRows:
    """One method's rows; where an image has several targets, `main` marks the one row that stands for it."""

    connection: duckdb.DuckDBPyConnection
    atlas: StoreReader
    method: str
    others: Mapping[str, int]
    """Rows of the store's other methods."""
    metrics: tuple[str, ...]
    """Those that at least one row has, in stored order."""
    chance_metrics: tuple[str, ...]
    total: int
    images: int

    @classmethod
    def of(cls, atlas: StoreReader, method: str | None = None) -> ReportRows:
        """Read them.

        Args:
            atlas: The store.
            method: Whose rows; None for the method with the most.

        Raises:
            UsageError: If the store has no row of that method.
        """
        counts = dict(atlas.query_rows("SELECT method, count(*) FROM atlas GROUP BY method ORDER BY 2 DESC, 1"))
        if method is not None and method not in counts:
            raise UsageError(f"{atlas.uri} has no row of the method {method!r}{did_you_mean(method, counts)}; it has "
                             f"{', '.join(map(str, counts))}")  # fmt: skip
        chosen = next(iter(counts)) if method is None else method
        facts = atlas.metadata.get("metrics", {})
        metrics = [
            name
            for name in metric_columns(atlas.schema)
            if atlas.schema.field(name).type == pa.float64() and facts.get(name, {}).get("unit") != CLASS_INDEX
        ]
        chance_metrics = chance_columns(atlas.schema)
        connection = duckdb.connect()
        _load(connection, atlas, chosen, metrics, with_chance=bool(chance_metrics))
        present = _present(connection, metrics)
        _mark_main_rows(connection)
        [(total, images)] = connection.execute("SELECT count(*), count(*) FILTER (main) FROM rows").fetchall()
        others = {str(name): count for name, count in counts.items() if name != chosen}
        return cls(connection, atlas, str(chosen), others, tuple(present), tuple(chance_metrics), total, images)

    def ask(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of the answer, by column name. The table is called `rows`."""
        cursor = self.connection.execute(query, list(parameters))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def single(self, query: str, parameters: Sequence[Any] = ()) -> dict[str, Any]:
        """The only row of the answer."""
        [row] = self.ask(query, parameters)
        return row

    def fact(self, metric: str) -> dict[str, Any]:
        """What the store says of a metric: definition, unit, better end, formula, range."""
        return dict(self.atlas.metadata.get("metrics", {}).get(metric, {}))

    def class_name(self, index: int | None) -> str:
        """As people call it; empty for none."""
        return "" if index is None else class_name(self.atlas.class_names, index)

    def details(self, keys: Sequence[RowKey], columns: Sequence[str]) -> dict[RowKey, dict[str, Any]]:
        """Stored columns of some rows, by `row_key`."""
        if not keys:
            return {}
        own = [name for name in ("id", "target", OBJECT, "method") if name in self.atlas.schema.names]
        names = list(dict.fromkeys([*own, *columns]))
        ids = ", ".join(literal(identity) for identity in sorted({key[0] for key in keys}))
        records = self.atlas.table(names, where=f"id IN ({ids}) AND method = {literal(self.method)}").to_pylist()
        wanted = set(keys)
        return {key: row for row in records if (key := row_key(row)) in wanted}


def row_key(row: Mapping[str, Any]) -> RowKey:
    """What names a row of one method."""
    return row["id"], row["target"], row.get(OBJECT)


def _load(
    connection: duckdb.DuckDBPyConnection, atlas: StoreReader, method: str, metrics: Sequence[str], *, with_chance: bool
) -> None:
    """Make the table `stored`, batch by batch: rows are in memory once, however many there are."""
    columns = [
        name
        for name in (*PLAIN, *metrics, *(["floors"] if with_chance else []))
        if name in (*atlas.schema.names, "floors")
    ]
    none = "" if OBJECT in columns else f"NULL::VARCHAR AS {OBJECT}, "
    measured = f"floors.random.{quoted(CHANCE_OF)}" if CHANCE_OF in chance_columns(atlas.schema) else "NULL::DOUBLE"
    with reading_parts(atlas.uri):
        batches = atlas.sql(
            f"SELECT {', '.join(map(quoted, columns))}, {none}{measured} AS {CHANCE}, md5_number_lower(id) AS draw, "
            f"md5_number_lower(parse_filename(filename)) AS file, file_row_number // {BLOCK} AS block, file_row_number AS place "
            f"FROM {PARTS} WHERE method = {literal(method)}"
        ).to_arrow_reader(BATCH)
        connection.register("heatlas_batches", batches)
        connection.execute("CREATE TABLE stored AS SELECT * FROM heatlas_batches")
    connection.unregister("heatlas_batches")
    if with_chance:
        _fill_chance(connection)


def _fill_chance(connection: duckdb.DuckDBPyConnection) -> None:
    """What a random map has where it was not measured: the mean of the label's rows on which it was; null where there is none."""
    connection.execute(f"CREATE TABLE label_chance AS SELECT label, avg({CHANCE}) AS mean FROM stored GROUP BY label")
    connection.execute(
        f"UPDATE stored SET {CHANCE} = mean FROM label_chance WHERE {CHANCE} IS NULL AND stored.label IS NOT DISTINCT FROM label_chance.label"
    )
    connection.execute("DROP TABLE label_chance")


def _mark_main_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `rows`: `stored` and which row stands for its image, the one that explains the prediction if there is one."""
    [(several,)] = connection.execute("SELECT count(*) > count(DISTINCT id) FROM stored").fetchall()
    if not several:
        connection.execute("CREATE VIEW rows AS SELECT *, true AS main FROM stored")
        return
    connection.execute(
        f"CREATE TABLE rows AS SELECT *, row_number() OVER (PARTITION BY id ORDER BY {ORDER}, {OBJECT} NULLS FIRST) = 1 AS main FROM stored"
    )
    connection.execute("DROP TABLE stored")


def _present(connection: duckdb.DuckDBPyConnection, metrics: Sequence[str]) -> list[str]:
    if not metrics:
        return []
    counts = ", ".join(f"count({quoted(name)})" for name in metrics)
    [counted] = connection.execute(f"SELECT {counts} FROM stored WHERE status = '{OK}'").fetchall()
    return [name for name, count in zip(metrics, counted, strict=True) if count]
