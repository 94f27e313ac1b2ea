"""A finished (or still growing) store, opened for people: tables, arrays and SQL."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..engine.errors import StorageError, UsageError, did_you_mean
from ..engine.statuses import OK
from .added_columns import AddedColumns
from .comparison import compare_scores
from .evaluations import KEYS
from .fingerprint import read_run
from .part_names import part_index, part_uris
from .query import PARTS, STORED, asking, connect_parts, reading_parts
from .schema import metric_columns, read_metadata
from .score_summary import score_summary
from .store import done_shards, read_part, read_part_schema

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

_NAMED = 5
"""How many ids a message names before it only counts them."""
Place = tuple[int, int]
"""Part and row in it."""


def open_atlas(uri: str | os.PathLike[str]) -> Atlas:
    """Open the store that `heatlas explain --out URI` wrote; also one whose run is not finished.

    Args:
        uri: Local path or fsspec URI of the run's directory.

    Raises:
        StorageError: If there is no run, or none of its shards is finished yet.
    """
    out = os.fspath(uri)
    run = read_run(out)
    done = done_shards(out)
    if not done:
        raise StorageError(f"{out} has no finished shard yet; wait for the run, or continue it with the same "
                           "`heatlas explain` command")  # fmt: skip
    return Atlas(out, run, list(done))


class Atlas:
    """Rows and maps of one run, as they were when it was opened.

    One row is one explained (sample, target, method). Nothing is read before it is asked for; `table`, `to_pandas` and `maps`
    bring what they return into memory, so name the columns or ids you need when the data set is large.
    """

    def __init__(self, uri: str, run: Mapping[str, Any], parts: Sequence[int]):
        self.uri = uri
        self.run = run
        """What produced the rows: `settings` as resolved, `fingerprint` (digests, `versions`), `created`, `schema_version`."""
        self.parts = tuple(parts)
        stored = read_part_schema(uri, self.parts[0])
        self._added = AddedColumns.of(uri, stored, self.parts)
        self.schema = self._added.extended(stored)
        """Columns of the run's files and, behind their metrics, those that `heatlas evaluate` added."""
        self.metadata = read_metadata(self.schema)
        """What the files say of themselves: size and value range of maps, metric definitions, class names, provenance."""
        names = self.class_names
        self._classes = pa.table(
            {"index": pa.array(range(len(names)), pa.int32()), "name": pa.array(names, pa.string())}
        )
        self._database = connect_parts(
            part_uris(uri, self.parts), columns=self.schema.names, joined=self._added.joins(), keys=KEYS
        )
        self._database.register("classes", self._classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every class by index; empty where the model has no names."""
        return tuple(self.metadata.get("class_names") or ())

    def __len__(self) -> int:
        """Number of rows, error rows included."""
        return sum(self.statuses().values())

    def __repr__(self) -> str:
        statuses = ", ".join(f"{count} {status}" for status, count in self.statuses().items())
        maps = "maps {height}x{width}".format(**self.metadata["map"]) if "map" in self.metadata else "no maps"
        metrics = ", ".join(metric_columns(self.schema)) or "no metrics"
        return f"<Atlas {self.uri}: {len(self)} rows ({statuses}), {maps}, {metrics}>"

    def statuses(self) -> dict[str, int]:
        """Rows by status, the most frequent first."""
        with reading_parts(self.uri):
            return dict(self._database.execute(
                f"SELECT status, count(*) FROM {STORED} GROUP BY status ORDER BY count(*) DESC, status"
            ).fetchall())  # fmt: skip

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Rows as an Arrow table with the stored types, in stored order.

        Args:
            columns: Their names; None for all, maps and PNGs included.
            where: SQL condition over any columns, such as `"status = 'ok' AND ebpg < 0.2"`.

        Raises:
            UsageError: For an unknown column or a condition that DuckDB refuses.
            StorageError: If a part cannot be read.
        """
        names = self.schema.names if columns is None else self._known(columns)
        if where is None:
            tables = [self._added.read(part, names) for part in self.parts]
        else:
            tables = [self._added.read(part, names).take(rows) for part, rows in self._rows_where(where).items()]
        # unifies nothing: all parts of a run have one schema
        return pa.concat_tables([pa.schema([self.schema.field(name) for name in names]).empty_table(), *tables]).select(
            names
        )

    def to_pandas(self, columns: Sequence[str] | None = None, where: str | None = None) -> pd.DataFrame:
        """As `table`, for pandas."""
        return self.table(columns, where).to_pandas()

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """Ask DuckDB, with the views `atlas` (all rows, all columns) and `classes(index, name)`.

        Returns:
            A DuckDB relation: it prints as a table, and `.df()`, `.pl()`, `.to_arrow_table()`, `.fetchall()` run it. In SQL the
            `map` column is `FLOAT[]`, rows from the top, counted from 1.

        Raises:
            UsageError: If DuckDB refuses the query, or it is not one that returns rows.
        """
        with asking(query):
            relation = self._database.sql(query)
        if relation is None:
            raise UsageError(f"the statement {query!r} returns no rows; ask with SELECT")
        return relation

    def summary(self, by: str | None = None, *, resamples: int = 1000, seed: int = 0) -> pa.Table:
        """Mean of every metric with its 95 % bootstrap interval, floors beside them; see `score_summary`, which this is."""
        return score_summary(self, by, resamples=resamples, seed=seed)

    def compare(self, other: Atlas | str, metrics: Sequence[str] | None = None, **options: Any) -> pa.Table:
        """Paired tests against another run over the same ids, or a floor of this one; see `compare_scores`, which this is."""
        return compare_scores(self, other, metrics, **options)

    def maps(self, ids: Iterable[str] | None = None, *, target: int | None = None) -> np.ndarray:
        """Maps as one array.

        Args:
            ids: Which, in this order, repeats allowed; None for every row that has a map, in stored order.
            target: Where ids have several rows, the explained class whose row is meant.

        Returns:
            float32 `(n, height, width)` in [0, 1], rows from the top; height and width as in `metadata["map"]`.

        Raises:
            UsageError: For ids that the store does not have, that have no map (with their status and error), or that have
                several rows and `target` does not choose one; or if the run stored no maps.
        """
        if "map" not in self.metadata:
            raise UsageError(
                "this run stored no maps (its store.map is off); table(columns=['id', 'map_png']) may have pictures"
            )
        height, width = self.metadata["map"]["height"], self.metadata["map"]["width"]
        if ids is None:
            found = [_map_values(read_part(self.uri, part, ["map"])["map"]) for part in self.parts]
            return np.concatenate(found).reshape(-1, height, width).astype(np.float32)
        wanted = [ids] if isinstance(ids, str) else list(ids)
        places = self._places_of(wanted, target)
        by_part: dict[int, list[int]] = defaultdict(list)
        for position, one in enumerate(wanted):
            by_part[places[one][0]].append(position)
        result = np.empty((len(wanted), height * width), dtype=np.float32)
        for part, positions in by_part.items():
            rows = [places[wanted[position]][1] for position in positions]
            result[positions] = _map_values(read_part(self.uri, part, ["map"])["map"].take(pa.array(rows)))
        return result.reshape(-1, height, width)

    def _known(self, columns: Sequence[str]) -> list[str]:
        names = [columns] if isinstance(columns, str) else list(columns)
        for name in names:
            if name not in self.schema.names:
                hint = did_you_mean(str(name), self.schema.names)
                raise UsageError(f"unknown column {name!r}{hint}; the columns are {', '.join(self.schema.names)}")
        return names

    def _rows_where(self, where: str) -> dict[int, list[int]]:
        with asking(where):
            found = self._database.execute(f"SELECT filename, file_row_number FROM {PARTS} WHERE ({where})").fetchall()
        rows: dict[int, list[int]] = defaultdict(list)
        for part, row in sorted((part_index(name), row) for name, row in found):
            rows[part].append(row)
        return rows

    def _places_of(self, ids: Sequence[str], target: int | None) -> dict[str, Place]:
        """Where each id's only row lies; complains about ids that cannot give exactly one map."""
        if strange := [one for one in ids if not isinstance(one, str)]:
            raise UsageError(f"ids are strings, got {strange[0]!r}")
        wanted = pa.table({"id": pa.array(sorted(set(ids)), pa.string())})
        self._database.register("heatlas_wanted", wanted)
        with reading_parts(self.uri):
            found = self._database.execute(
                f"SELECT id, filename, file_row_number, status, error FROM {STORED} SEMI JOIN heatlas_wanted USING (id) "
                "WHERE $target IS NULL OR target = $target",
                {"target": target},
            ).fetchall()
        self._database.unregister("heatlas_wanted")
        places = {one: (part_index(name), row) for one, name, row, _, _ in found}
        self._refuse(
            "are not in this store" if target is None else f"have no row for the target {target} in this store",
            [repr(one) for one in ids if one not in places],
        )
        self._refuse(
            "have no map", [f"{one!r} ({status}: {error})" for one, _, _, status, error in found if status != OK]
        )
        if len(found) > len(places):
            self._refuse(
                "have several rows, one per target; choose one with target=CLASS, or use table(where=...)",
                _repeated([row[0] for row in found]),
            )
        return places

    def _refuse(self, why: str, names: Sequence[str]) -> None:
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise UsageError(f"{len(names)} of the ids {why}: {', '.join(names[:_NAMED])}{more}; "
                             "`.table(columns=['id', 'status', 'error'])` lists all")  # fmt: skip


def _map_values(column: pa.ChunkedArray) -> np.ndarray:
    """The values of all maps that are not null: float16 `(n, height * width)`."""
    kept = column.drop_null()
    side = column.type.list_size
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in kept.chunks]
    return np.concatenate([np.empty(0, np.float16), *flat]).reshape(-1, side)


def _repeated(ids: Sequence[str]) -> list[str]:
    return [repr(one) for one, count in Counter(ids).items() if count > 1]
