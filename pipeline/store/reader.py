"""Read a store, finished or still growing: tables, arrays and SQL."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import StorageError, UsageError, did_you_mean
from ...statuses import OK
from ..settings.imported_runs import command_of
from .committed_shards import done_shards, read_file_schema
from .earlier_columns import RENAMED_COLUMNS
from .evaluation_columns import AddedColumns
from .evaluations import KEYS
from .footer_reader import part_summaries
from .object_rows import row_choice
from .part_files import DoneShards, PartFile
from .part_reader import open_file, read_rows
from .run_file import read_run
from .schema import metric_columns, read_metadata
from .sql import PARTS, STORED, StoredRows, asking, connect_rows, reading_parts

if TYPE_CHECKING:
    import duckdb
    import pandas as pd


_NAMED = 5
"""How many ids a message names before it only counts them."""
Place = tuple[PartFile, int]
"""File and row in it."""
Found = TypeVar("Found")
Reader = TypeVar("Reader", bound="StoreReader")


@overload
def open_store(uri: str | os.PathLike[str]) -> StoreReader: ...
@overload
def open_store(uri: str | os.PathLike[str], kind: type[Reader]) -> Reader: ...
def open_store(uri: str | os.PathLike[str], kind: type[StoreReader] | None = None) -> StoreReader:
    """Open the store that `heatlas explain --out URI` wrote; also one whose run is not finished.

    Args:
        uri: Local path or fsspec URI of the run's directory.
        kind: What to open it as.

    Raises:
        StorageError: If there is no run, none of its shards is finished yet, or a file belongs to another run or shard.
    """
    out = os.fspath(uri)
    run = read_run(out)
    done = done_shards(out)
    if not done:
        raise StorageError(f"{out} has no finished shard yet; wait for the run, or continue it with the same "
                           f"`{command_of(run['settings'])}` command")  # fmt: skip
    part_summaries(out, done)  # refuses parts of another run
    return (kind or StoreReader)(out, run, done)


class StoreReader:
    """Rows and maps of one run, as they were when it was opened.

    One row is one explained (sample, target, method). Nothing is read before it is asked for; `table`, `to_pandas` and `maps`
    bring what they return into memory, so name the columns or ids you need when the data set is large.
    """

    def __init__(self, uri: str, run: Mapping[str, Any], done: DoneShards):
        self.uri = uri
        self.run = run
        """What produced the rows: `settings` as resolved, `fingerprint` (digests, `versions`), `created`, `schema_version`."""
        self.parts = tuple(done)
        """Shards whose rows these are."""
        self._use(done)

    def _use(self, done: DoneShards) -> None:
        """Read from these files from now on."""
        self.files = tuple(done.files_with(self.parts))
        """Where the rows lie, in order: parts, or what `heatlas compact` made of them."""
        self._by_name = {file.name: file for file in self.files}
        stored = read_file_schema(self.uri, self.files[0])
        self._added = AddedColumns.of(self.uri, stored, self.parts)
        self.schema = self._added.extended(stored)
        """Columns of the run's files and, behind their metrics, those that `heatlas evaluate` added."""
        self.metadata = read_metadata(self.schema)
        """What the files say of themselves: size and value range of maps, metric definitions, class names, provenance."""
        self._connect()

    def _connect(self) -> None:
        self._database = self._connected()
        self._locked: duckdb.DuckDBPyConnection | None = None

    def _connected(self, *, locked: bool = False) -> duckdb.DuckDBPyConnection:
        return connect_rows([self.stored_rows()], classes=self.class_names, locked=locked)

    def stored_rows(self) -> StoredRows:
        """Where the rows lie, as DuckDB is to read them."""
        files, metrics = [file.uri(self.uri) for file in self.files], self._measured
        return StoredRows(files, self.schema.names, self._added.joins(), KEYS, metrics)

    def tables_of(self, file: PartFile, names: Sequence[str], rows: Sequence[int] | None = None) -> Iterator[pa.Table]:
        """The rows of one of its files, or some of them in ascending order, a row group at a time; added metrics beside them."""
        wanted = [name for name in names if name in self._measured]
        return (_only_finite(table, wanted) for table in self._added.tables(file, names, rows))

    @property
    def _measured(self) -> list[str]:
        """Columns of metrics."""
        return [name for name in metric_columns(self.schema) if self.schema.field(name).type == pa.float64()]

    def _follow(self) -> bool:
        """Find the rows again where `heatlas compact` has put them since; False if they lie where they lay."""
        done = done_shards(self.uri)
        if done.files_with(self.parts) == list(self.files) or not done.keys() >= set(self.parts):
            return False
        self._use(done)
        return True

    def _steadily(self, read: Callable[[], Found]) -> Found:
        """What `read` gives, once more if files went away meanwhile because they were merged."""
        try:
            return read()
        except StorageError:
            if not self._follow():
                raise
            return read()

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
        return f"<{type(self).__name__} {self.uri}: {len(self)} rows ({statuses}), {maps}, {metrics}>"

    def statuses(self) -> dict[str, int]:
        """Rows by status, the most frequent first."""

        def count() -> dict[str, int]:
            with reading_parts(self.uri):
                return dict(self._database.execute(
                    f"SELECT status, count(*) FROM {STORED} GROUP BY status ORDER BY count(*) DESC, status"
                ).fetchall())  # fmt: skip

        return self._steadily(count)

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
        tables = self._tables(names, where)
        # unifies nothing: all parts of a run have one schema
        return pa.concat_tables([pa.schema([self.schema.field(name) for name in names]).empty_table(), *tables]).select(
            names
        )

    def to_pandas(self, columns: Sequence[str] | None = None, where: str | None = None) -> pd.DataFrame:
        """As `table`, for pandas."""
        return self.table(columns, where).to_pandas()

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """Ask DuckDB, with the views `atlas` (all rows, all columns) and `classes(index, name)`.

        Class names stand beside `label` and `prediction` in `label_name` and `prediction_name`; `class_name(target)` names any index.

        Returns:
            A DuckDB relation: it prints as a table, and `.df()`, `.pl()`, `.to_arrow_table()`, `.fetchall()` run it. In SQL the
            `map` column is `FLOAT[]`, rows from the top, counted from 1.

        Raises:
            UsageError: If DuckDB refuses the query, or it is not one that returns rows.
        """
        self._follow()  # the relation reads when it is run, and then cannot look for its files again

        def ask() -> duckdb.DuckDBPyRelation:
            with asking(query):
                return self._database.sql(query)

        relation = self._steadily(ask)
        if relation is None:
            raise UsageError(f"the statement {query!r} returns no rows; ask with SELECT")
        return relation

    def query_table(self, query: str) -> pa.Table:
        """As `sql`, read at once into an Arrow table.

        Raises:
            UsageError: If DuckDB refuses the query.
            StorageError: If a part cannot be read.
        """
        return self._answer(query, lambda relation: relation.to_arrow_table())

    def query_rows(self, query: str) -> list[tuple[Any, ...]]:
        """As `query_table`, as a list of rows."""
        return self._answer(query, lambda relation: relation.fetchall())

    def _answer(self, query: str, read: Callable[[duckdb.DuckDBPyRelation], Found]) -> Found:
        def answer() -> Found:
            with asking(query):  # the relation reads only now
                return read(self.sql(query))

        return self._steadily(answer)

    def maps(
        self, ids: Iterable[str] | None = None, *, target: int | None = None, object_id: str | None = None
    ) -> np.ndarray:
        """Maps as one array.

        Args:
            ids: Which, in this order, repeats allowed; None for every row that has a map, in stored order.
            target: Where ids have several rows, the explained class whose row is meant.
            object_id: Where objects of the class have rows of their own, which one, such as `001`, the largest.

        Returns:
            float32 `(n, height, width)` in [0, 1], rows from the top; height and width as in `metadata["map"]`.

        Raises:
            UsageError: For ids that the store does not have, that have no map (with their status and error), or that have
                several rows and `target` and `object_id` do not choose one; or if the run stored no maps.
        """
        if "map" not in self.metadata:
            raise UsageError(
                "this run stored no maps (its store.map is off); table(columns=['id', 'map_png']) may have pictures"
            )
        height, width = self.metadata["map"]["height"], self.metadata["map"]["width"]
        if ids is None:
            values = [_map_values(table["map"]) for table in self._tables(["map"])]
        else:
            wanted = [ids] if isinstance(ids, str) else list(ids)
            values = self._steadily(lambda: [self._maps_of(wanted, target, object_id)])
        return np.concatenate([np.empty((0, height * width), np.float32), *values]).reshape(-1, height, width)

    def _maps_of(self, ids: Sequence[str], target: int | None, object_id: str | None) -> np.ndarray:
        places = self._places_of(ids, target, object_id)
        by_file: dict[PartFile, list[int]] = defaultdict(list)
        for position, sample_id in enumerate(ids):
            by_file[places[sample_id][0]].append(position)
        arrays, order = [], []
        for file, positions in by_file.items():
            rows = [places[ids[position]][1] for position in positions]
            with open_file(self.uri, file) as opened:
                arrays.append(_map_values(read_rows(opened, rows, ["map"])["map"]))
            order += positions
        return (
            np.concatenate(arrays)[np.argsort(order)]
            if arrays
            else np.empty((0, self.schema.field("map").type.list_size))
        )

    def batches(
        self, columns: Sequence[str] | None = None, where: str | None = None, ids: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """As `table`, but in pieces of a few MB one after the other, for stores that do not fit in memory.

        Args:
            columns: Their names; None for all.
            where: SQL condition.
            ids: Only rows of these images; what the store does not have is passed over.
        """
        names = self.schema.names if columns is None else self._known(columns)
        yield from self._tables(names, where, ids)

    def count(self, where: str | None = None, ids: Sequence[str] | None = None) -> int:
        """Rows of which a condition is true, or rows of some images."""
        return self._steadily(lambda: self._ask_parts("count(*)", where, ids)[0][0])

    def _ask_parts(self, what: str, where: str | None, ids: Sequence[str] | None) -> list[tuple]:
        chosen, database = "", self._database
        if where is not None:  # not ours to trust: it may read the rows and nothing else
            database = self._locked = self._locked or self._connected(locked=True)
        if ids is not None:
            database.register("heatlas_chosen", pa.table({"id": pa.array(list(ids), pa.string())}))
            chosen = "WHERE id IN (SELECT id FROM heatlas_chosen)"
        with asking(where or what):  # in a subquery of its own, so that a condition cannot end the clause that holds it
            inner = f"SELECT * FROM {PARTS} WHERE ({where}\n)" if where is not None else f"SELECT * FROM {PARTS}"
            return database.execute(f"SELECT {what} FROM ({inner}) {chosen}").fetchall()

    def _tables(
        self, names: Sequence[str], where: str | None = None, ids: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Pieces of all rows, once more without those that were given already if files went away because they were merged."""
        given = 0
        while True:
            skipped = 0
            try:
                for piece in self._pieces(names, where, ids):
                    new = piece.slice(min(len(piece), given - skipped)) if skipped < given else piece
                    skipped += len(piece) - len(new)
                    if len(new):
                        given, skipped = given + len(new), skipped + len(new)
                        yield new
                return
            except StorageError:
                if not self._follow():
                    raise

    def _pieces(self, names: Sequence[str], where: str | None, ids: Sequence[str] | None) -> Iterator[pa.Table]:
        if where is None and ids is None:
            for file in self.files:
                yield from self.tables_of(file, names)
        else:
            for file, rows in self._rows_where(where, ids).items():
                yield from self.tables_of(file, names, rows)

    def _file(self, name: str) -> PartFile:
        """The file that DuckDB calls so."""
        return self._by_name[name.rsplit("/", 1)[-1]]

    def _known(self, columns: Sequence[str]) -> list[str]:
        names = [columns] if isinstance(columns, str) else list(columns)
        for name in names:
            if name not in self.schema.names:
                now = RENAMED_COLUMNS.get(str(name))
                hint = f", which is called {now!r} now" if now else did_you_mean(str(name), self.schema.names)
                raise UsageError(f"unknown column {name!r}{hint}; the columns are {', '.join(self.schema.names)}")
        return names

    def _rows_where(self, where: str | None, ids: Sequence[str] | None) -> dict[PartFile, list[int]]:
        matches = self._ask_parts("filename, file_row_number", where, ids)
        rows: dict[PartFile, list[int]] = defaultdict(list)
        for file, row in sorted((self._file(name), row) for name, row in matches):
            rows[file].append(row)
        return rows

    def _places_of(self, ids: Sequence[str], target: int | None, object_id: str | None) -> dict[str, Place]:
        """Where each id's only row lies; complains about ids that cannot give exactly one map."""
        if strange := [sample_id for sample_id in ids if not isinstance(sample_id, str)]:
            raise UsageError(f"ids are strings, got {strange[0]!r}")
        which, said, chosen = row_choice(self.schema, target, object_id)
        wanted = pa.table({"id": pa.array(sorted(set(ids)), pa.string())})
        self._database.register("heatlas_wanted", wanted)
        with reading_parts(self.uri):
            matches = self._database.execute(
                f"SELECT id, filename, file_row_number, status, error FROM {STORED} SEMI JOIN heatlas_wanted USING (id) WHERE {which}",
                chosen,
            ).fetchall()
        self._database.unregister("heatlas_wanted")
        places = {sample_id: (self._file(name), row) for sample_id, name, row, _, _ in matches}
        self._refuse(
            f"have no row for the {said} in this store" if said else "are not in this store",
            [repr(sample_id) for sample_id in ids if sample_id not in places],
        )
        self._refuse(
            "have no map",
            [f"{sample_id!r} ({status}: {error})" for sample_id, _, _, status, error in matches if status != OK],
        )
        if len(matches) > len(places):
            self._refuse(
                "have several rows, one per target or object; choose one with target=CLASS and object_id=ID, or use table(where=...)",
                _repeated([row[0] for row in matches]),
            )
        return places

    def _refuse(self, why: str, names: Sequence[str]) -> None:
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise UsageError(f"{len(names)} of the ids {why}: {', '.join(names[:_NAMED])}{more}; "
                             "`.table(columns=['id', 'status', 'error'])` lists all")  # fmt: skip


def _only_finite(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with nulls for numbers that are none."""
    for name in names:
        finite = pc.is_finite(table[name])  # pyright: ignore[reportAttributeAccessIssue]
        if not pc.all(finite, min_count=0).as_py():  # pyright: ignore[reportAttributeAccessIssue]
            values = pc.if_else(finite, table[name], None)  # pyright: ignore[reportAttributeAccessIssue]
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    return table


def _map_values(column: pa.ChunkedArray) -> np.ndarray:
    """The values of all maps that are not null: float16 `(n, height * width)`."""
    kept = column.drop_null()
    side = column.type.list_size
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in kept.chunks]
    return np.concatenate([np.empty(0, np.float16), *flat]).reshape(-1, side)


def _repeated(ids: Sequence[str]) -> list[str]:
    return [repr(sample_id) for sample_id, count in Counter(ids).items() if count > 1]
