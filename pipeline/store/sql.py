"""DuckDB over the part files of a store, local or behind fsspec. Knows files and SQL, not what the columns mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsspec.implementations.memory import MemoryFileSystem

from ...errors import StorageError, UsageError
from ..storage.location import is_local, locate
from ..storage.retried_reads import RetriedFileSystem
from ..text import sql_refusal

if TYPE_CHECKING:
    import duckdb

PARTS = "heatlas_parts"
"""The view with two extra columns, `filename` and `file_row_number`, which say where a row lies."""
STORED = "heatlas_stored"
"""The same without the columns that are joined, for questions that do not need them."""


@dataclass(frozen=True)
class Joined:
    """Files whose rows belong to rows of the store."""

    uris: Sequence[str]
    """None: the columns are null everywhere."""
    columns: Sequence[str]
    """Those to take over, all of them numbers."""


def connect_parts(
    uris: Sequence[str], *, columns: Sequence[str] = (), joined: Sequence[Joined] = (), keys: Sequence[str] = ()
) -> duckdb.DuckDBPyConnection:
    """A private in-memory DuckDB with the views `heatlas_stored`, `heatlas_parts` and `atlas` over the files `uris`.

    Args:
        uris: Part files, at least one.
        columns: The order of the columns in `atlas`, where something is joined.
        joined: What to join to the rows; a row without a partner has nulls there.
        keys: Columns by which rows find each other.

    Raises:
        StorageError: If the first file cannot be read.
    """
    import duckdb  # here, because `heatlas --help` should not wait for it

    with contextlib.ExitStack() as on_failure:
        connection = on_failure.enter_context(contextlib.closing(duckdb.connect()))
        fs, _ = locate(uris[0])
        if not is_local(fs):
            connection.register_filesystem(RetriedFileSystem(fs))
        if isinstance(
            fs, MemoryFileSystem
        ):  # its open files share one position, which threads would move under each other
            connection.execute("SET threads TO 1")
        with reading_parts(uris[0]):
            # a file name with * or ? in it is taken literally by DuckDB where such a file exists
            connection.read_parquet(_paths(uris), filename=True, file_row_number=True).create_view(STORED)
            for number, join in enumerate(joined):
                if join.uris:
                    connection.read_parquet(_paths(join.uris)).create_view(f"heatlas_joined_{number}")
            connection.execute(f"CREATE VIEW {PARTS} AS {_join(columns, joined, keys)}")
            connection.execute(f"CREATE VIEW atlas AS SELECT * EXCLUDE (filename, file_row_number) FROM {PARTS}")
        on_failure.pop_all()
    return connection


def _paths(uris: Sequence[str]) -> list[str]:
    fs, _ = locate(uris[0])
    paths = [locate(uri)[1] for uri in uris]
    return paths if is_local(fs) else [fs.unstrip_protocol(path) for path in paths]


def _join(columns: Sequence[str], joined: Sequence[Joined], keys: Sequence[str]) -> str:
    if not joined:
        return f"SELECT * FROM {STORED}"
    sources = {name: f"j{number}.{quoted(name)}" if join.uris else f"NULL::DOUBLE AS {quoted(name)}"
               for number, join in enumerate(joined) for name in join.columns}  # fmt: skip
    chosen = [sources.get(name, f"s.{quoted(name)}") for name in (*columns, "filename", "file_row_number")]
    using = ", ".join(map(quoted, keys))
    joins = [
        f"LEFT JOIN heatlas_joined_{number} j{number} USING ({using})"
        for number, join in enumerate(joined)
        if join.uris
    ]
    return f"SELECT {', '.join(chosen)} FROM {STORED} s {' '.join(joins)}"


@contextlib.contextmanager
def reading_parts(uri: str) -> Iterator[None]:
    """Turns what DuckDB says about unreadable files into a StorageError."""
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise StorageError(f"cannot read the part files of {uri}: {_cause(error)}; delete the file named there, if any, and run the "
                           "same `heatlas explain` command again, which recomputes only its shard") from error  # fmt: skip


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
        raise UsageError(f"DuckDB refuses {query!r}: {sql_refusal(error)}") from None


def literal(text: str) -> str:
    """A text as SQL, whatever is in it."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column name as SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
