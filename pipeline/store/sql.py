"""DuckDB over the part files of a store, local or behind fsspec. Knows files and SQL, not what the columns mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from fsspec.implementations.memory import MemoryFileSystem

from ...errors import StorageError, UsageError
from ..storage.backoff import remedy
from ..storage.location import is_local, locate
from ..storage.retried_reads import RetriedFileSystem
from ..text import sql_refusal
from .earlier_columns import RENAMED_COLUMNS, name_now
from .unreadable_file import system_error

if TYPE_CHECKING:
    import duckdb

PARTS = "heatlas_parts"
"""The view with two extra columns, `filename` and `file_row_number`, which say where a row lies."""
MEMBER = "heatlas_member"
"""The column that says, of several stores, in which a row is."""
LOCK = ("SET python_enable_replacements = false", "SET enable_external_access = false", "SET lock_configuration = true")
"""What keeps SQL to the tables that are there: no files, no network, no Python variables, no settings."""
STORED = "heatlas_stored"
"""The same without the columns that are joined, for questions that do not need them."""


_REPAIR = (
    "`heatlas verify` finds damaged files; delete the file named there, if any, and run the same `heatlas explain` or `heatlas import` "
    "command again, which recomputes only its shard"
)
_DAMAGE = ("Failed to read file", "Invalid string encoding found in Parquet")
"""What DuckDB says of pages that it cannot decode, where it does not hand on a bare error of its Thrift reader."""


@dataclass(frozen=True)
class Joined:
    """Files whose rows belong to rows of the store."""

    uris: Sequence[str]
    """None: the columns are null everywhere."""
    columns: Sequence[str]
    """Those to take over, all of them numbers."""


@dataclass(frozen=True)
class StoredRows:
    """The rows of one store, as DuckDB is to read them."""

    uris: Sequence[str]
    """Part files, at least one."""
    columns: Sequence[str] = ()
    """Their order, where something is joined."""
    joined: Sequence[Joined] = ()
    """What to join to the rows; a row without a partner has nulls there."""
    keys: Sequence[str] = ()
    """Columns by which rows find each other."""
    finite: Sequence[str] = ()
    """Columns of numbers in which what is not finite is missing: metrics, should another writer have stored NaN."""

    @property
    def files(self) -> list[str]:
        """All that is read, joined files among them."""
        return [*self.uris, *(uri for join in self.joined for uri in join.uris)]


def connect_parts(uris: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """As `connect_rows`, over part files with nothing joined."""
    return connect_rows([StoredRows(uris)])


def connect_rows(
    stores: Sequence[StoredRows], columns: Sequence[str] = (), classes: Sequence[str] = (), *, locked: bool = False
) -> duckdb.DuckDBPyConnection:
    """A private in-memory DuckDB with the views `heatlas_stored`, `heatlas_parts` and `atlas` over the rows of one or more stores.

    Args:
        stores: At least one. Of several, the two views also say in `heatlas_member` which store a row is in, counted from 0.
        columns: Of `atlas`, for several stores; what a store lacks is null in its rows.
        classes: Names of the classes by index, for the table `classes` and the macro `class_name`.
        locked: Whether statements can read nothing but the stores' files, write nothing and change no setting.

    Raises:
        StorageError: If the first file of a store cannot be read.
    """
    import duckdb  # here, because `heatlas --help` should not wait for it

    with contextlib.ExitStack() as on_failure:
        connection = on_failure.enter_context(contextlib.closing(duckdb.connect()))
        _register_storage(connection, [store.uris[0] for store in stores])
        for member, store in enumerate(stores):
            with reading_parts(store.uris[0]):
                _create_views(connection, store, "" if len(stores) == 1 else f"_{member}")
        if len(stores) > 1:
            _unite_views(connection, len(stores), columns)
        exclude = ["filename", "file_row_number", *([MEMBER] if len(stores) > 1 else [])]
        with reading_parts(stores[0].uris[0]):  # the files are looked at once more
            connection.execute(f"CREATE VIEW atlas AS SELECT * EXCLUDE ({', '.join(exclude)}) FROM {PARTS}")
        _add_class_names(connection, classes)
        if locked:
            _lock(connection, [file_name(uri) for store in stores for uri in store.files])
        on_failure.pop_all()
    return connection


def _add_class_names(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    indices = pa.array(range(len(names)), pa.int32())
    connection.register("classes", pa.table({"index": indices, "name": pa.array(names, pa.string())}))
    connection.execute("CREATE MACRO class_name(number) AS (SELECT any_value(name) FROM classes WHERE index = number)")


def _lock(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, files))}]")
    for statement in LOCK:
        connection.execute(statement)


def _register_storage(connection: duckdb.DuckDBPyConnection, uris: Sequence[str]) -> None:
    registered = set()
    for uri in uris:
        fs, _ = locate(uri)
        if not is_local(fs) and str(fs.protocol) not in registered:
            registered.add(str(fs.protocol))
            connection.register_filesystem(RetriedFileSystem(fs))
        if isinstance(fs, MemoryFileSystem):
            # its open files share one position, which threads would move under each other
            connection.execute("SET threads TO 1")


def _create_views(connection: duckdb.DuckDBPyConnection, store: StoredRows, suffix: str) -> None:
    """The two views of one store, under names that end in `suffix`."""
    # a file name with * or ? in it is taken literally by DuckDB where such a file exists
    stored = connection.read_parquet(_paths(store.uris), filename=True, file_row_number=True)
    _readable(stored, store.finite).create_view(f"{STORED}{suffix}")
    for number, join in enumerate(store.joined):
        if join.uris:
            connection.read_parquet(_paths(join.uris)).create_view(f"heatlas_joined{suffix}_{number}")
    keys = [name for name in store.keys if name in stored.columns]
    connection.execute(f"CREATE VIEW {PARTS}{suffix} AS {_join(connection, store, suffix, keys)}")


def _unite_views(connection: duckdb.DuckDBPyConnection, count: int, columns: Sequence[str]) -> None:
    names = ", ".join(map(quoted, (*columns, "filename", "file_row_number", MEMBER)))
    for view, chosen in ((STORED, "*"), (PARTS, names)):
        members = (f"SELECT *, {member} AS {MEMBER} FROM {view}_{member}" for member in range(count))
        connection.execute(f"CREATE VIEW {view} AS SELECT {chosen} FROM ({' UNION ALL BY NAME '.join(members)})")


def file_name(uri: str) -> str:
    """What the column `filename` says of a file."""
    return _paths([uri])[0]


def _readable(stored: duckdb.DuckDBPyRelation, finite: Sequence[str]) -> duckdb.DuckDBPyRelation:
    """Under today's names, without numbers that are none."""
    shown = []
    for name in stored.columns:
        value = f"CASE WHEN isfinite({quoted(name)}) THEN {quoted(name)} END" if name in finite else quoted(name)
        shown.append(f"{value} AS {quoted(name_now(name, stored.columns))}")
    return stored.project(", ".join(shown))


def _paths(uris: Sequence[str]) -> list[str]:
    fs, _ = locate(uris[0])
    paths = [locate(uri)[1] for uri in uris]
    return paths if is_local(fs) else [fs.unstrip_protocol(path) for path in paths]


def _join(connection: duckdb.DuckDBPyConnection, store: StoredRows, suffix: str, keys: Sequence[str]) -> str:
    columns, joined = store.columns, store.joined
    if not joined:
        return f"SELECT * FROM {STORED}{suffix}"
    sources = {name: f"j{number}.{quoted(name)}" if join.uris else f"NULL::DOUBLE AS {quoted(name)}"
               for number, join in enumerate(joined) for name in join.columns}  # fmt: skip
    chosen = [sources.get(name, f"s.{quoted(name)}") for name in (*columns, "filename", "file_row_number")]
    joins = []
    for number, join in enumerate(joined):
        if join.uris:
            view = f"heatlas_joined{suffix}_{number}"
            there = connection.table(view).columns  # those of earlier versions lack a key that is null everywhere
            pairs = (
                f"s.{quoted(name)} IS NOT DISTINCT FROM j{number}.{quoted(name)}" for name in keys if name in there
            )
            joins.append(f"LEFT JOIN {view} j{number} ON {' AND '.join(pairs)}")
    return f"SELECT {', '.join(chosen)} FROM {STORED}{suffix} s {' '.join(joins)}"


@contextlib.contextmanager
def reading_parts(uri: str) -> Iterator[None]:
    """Turns what DuckDB says about unreadable files into a StorageError."""
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as error:
        if (cause := system_error(error)) is not None:
            raise StorageError(f"cannot read the part files of {uri}: {_cause(error)}; {remedy(cause)}") from error
        raise StorageError(f"cannot read the part files of {uri}: {_cause(error)}; {_REPAIR}") from error


def _cause(error: Exception) -> str:
    """What happened; where DuckDB hands on an exception of Python with its traceback, only the exception."""
    text = str(error)
    return text.strip().splitlines()[-1] if "Traceback (most recent call last)" in text else text


@contextlib.contextmanager
def asking(query: str) -> Iterator[None]:
    """Turns what DuckDB says about a user's query into a UsageError, and about unreadable files into a StorageError."""
    import duckdb

    try:
        yield
    except (duckdb.IOException, OSError) as error:
        raise StorageError(
            f"cannot read the part files: {_cause(error)}; check the storage and open the store again"
        ) from error
    except duckdb.Error as error:
        if type(error) is duckdb.Error or any(text in str(error) for text in _DAMAGE):
            raise StorageError(f"cannot read the part files: {_cause(error)}; {_REPAIR}") from error
        raise UsageError(f"DuckDB refuses {query!r}: {sql_refusal(error)}{_renamed_column(error)}") from None


def _renamed_column(error: Exception) -> str:
    """A hint where a statement names a column as earlier versions did."""
    names = [old for old in RENAMED_COLUMNS if f'"{old}" not found' in str(error)]
    return f"; the column {names[0]} is called {RENAMED_COLUMNS[names[0]]} now" if names else ""


def literal(text: str) -> str:
    """A text as SQL, whatever is in it."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column name as SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
