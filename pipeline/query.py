"""DuckDB over the part files of a store, local or behind fsspec. Knows files and SQL, not what the columns mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fsspec.implementations.memory import MemoryFileSystem

from ..engine.errors import StorageError, UsageError
from .location import is_local, locate

if TYPE_CHECKING:
    import duckdb

PARTS = "heatlas_parts"
"""The view with two extra columns, `filename` and `file_row_number`, which say where a row lies."""


def connect_parts(uris: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """A private in-memory DuckDB with the views `heatlas_parts` and `atlas` (the columns as stored) over the files `uris`.

    Raises:
        StorageError: If the first file cannot be read.
    """
    import duckdb  # here, because `heatlas --help` should not wait for it

    connection = duckdb.connect()
    fs, _ = locate(uris[0])
    paths = [locate(uri)[1] for uri in uris]
    if not is_local(fs):
        connection.register_filesystem(fs)
        paths = [fs.unstrip_protocol(path) for path in paths]
    if isinstance(fs, MemoryFileSystem):  # its open files share one position, which threads would move under each other
        connection.execute("SET threads TO 1")
    with reading_parts(uris[0]):
        # a file name with * or ? in it is taken literally by DuckDB where such a file exists
        connection.read_parquet(paths, filename=True, file_row_number=True).create_view(PARTS)
        connection.execute(f"CREATE VIEW atlas AS SELECT * EXCLUDE (filename, file_row_number) FROM {PARTS}")
    return connection


@contextlib.contextmanager
def reading_parts(uri: str) -> Iterator[None]:
    """Turns what DuckDB says about unreadable files into a StorageError."""
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise StorageError(f"cannot read the part files of {uri}: {error}; delete the file named there, if any, and run the "
                           "same `heatlas explain` command again, which recomputes only its shard") from error  # fmt: skip


@contextlib.contextmanager
def asking(query: str) -> Iterator[None]:
    """Turns what DuckDB says about a user's query into a UsageError, and about unreadable files into a StorageError."""
    import duckdb

    try:
        yield
    except (duckdb.IOException, OSError) as error:
        raise StorageError(
            f"cannot read the part files: {error}; check the storage and open the store again"
        ) from error
    except duckdb.Error as error:
        raise UsageError(f"DuckDB refuses {query!r}: {error}") from None


def quoted(name: str) -> str:
    """A column name as SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
