"""Which of a data set's samples a run is about: `--where`, then `--ids`, then `--sample`, then `--limit`."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import heapq
import io
import os
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ....errors import DataError, UsageError, did_you_mean
from ...shards import EXTRA
from ...storage.location import locate
from ...text import counted, shown, sql_refusal
from .manifest_files import read_json_lines

_NAMED = 5
LOCKED = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "lock_configuration": "true",
}
"""What keeps a condition to the listing: it can open no file, load no extension, see no Python variable, and change none of this."""


def filter_by_condition(listing: pa.Table, condition: str) -> pa.Table:
    """The samples for which an SQL condition is true.

    Args:
        listing: As a source gives it; the data set's own columns are called by their own names.
        condition: A DuckDB expression over `id, uri, label, boxes, mask_uri` and the data set's own columns.

    Raises:
        DataError: If DuckDB refuses it, or it is true of no sample.
    """
    import duckdb  # here, because `heatlas --help` should not wait for it

    columns: dict[str, pa.ChunkedArray] = {}
    for name in listing.column_names:
        columns.setdefault(name.removeprefix(EXTRA), listing[name])
    names = ", ".join(columns)
    row = "heatlas_row"
    table = pa.table({**columns, row: pa.array(range(len(listing)), pa.int64())})
    with duckdb.connect(config=cast(dict, LOCKED)) as connection:
        try:
            matching = connection.from_arrow(table).filter(duckdb.SQLExpression(condition)).project(row)
            rows = np.sort(matching.fetchnumpy()[row])
        except duckdb.Error as error:
            raise DataError(
                f"--where {condition!r} is refused by DuckDB: {sql_refusal(error)}; the columns are {names}"
            ) from None
    if not len(rows):
        raise DataError(
            f"--where {condition!r} is true of none of {counted(len(listing), 'sample')}; the columns are {names}"
        )
    return listing.take(pa.array(rows))


def select_ids(listing: pa.Table, uri: str) -> pa.Table:
    """The samples whose ids a file lists: one per line, or the column `id` of a `.csv`, `.jsonl` or `.parquet` file.

    Raises:
        DataError: If it cannot be read, is empty, or lists an id that no sample has.
    """
    wanted = pc.unique(_ids_in(uri))
    if not len(wanted):
        raise DataError(f"--ids {uri} lists no ids; write one per line")
    unknown = wanted.filter(pc.invert(pc.is_in(wanted, listing["id"].combine_chunks()))).to_pylist()
    if unknown:
        few = ", ".join(shown(identity) for identity in unknown[:_NAMED]) + (" ..." if len(unknown) > _NAMED else "")
        hint = did_you_mean(unknown[0], listing["id"].slice(0, 10_000).to_pylist())
        raise DataError(f"--ids {uri} lists {counted(len(unknown), 'id')} that no sample has: {few}{hint}; ids look like "
                        f"{shown(listing['id'][0].as_py())}")  # fmt: skip
    return listing.filter(pc.is_in(listing["id"], wanted))


def _ids_in(uri: str) -> pa.Array:
    try:
        fs, path = locate(os.path.expanduser(uri))
        data = cast(bytes, fs.cat_file(path))
    except UsageError as error:
        raise DataError(f"--ids {uri}: {error}") from error
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"cannot read --ids {uri}: {type(error).__name__}: {error}") from error
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix in (".csv", ".tsv"):
            return _csv_ids(data, "\t" if suffix == ".tsv" else ",")
        if suffix in (".jsonl", ".ndjson"):
            return read_json_lines(data, {"id": "id"}, uri)[0]["id"].combine_chunks()
        if suffix == ".parquet":
            return pq.read_table(io.BytesIO(data), columns=["id"])["id"].cast(pa.string()).combine_chunks()
        lines = (line.strip("\r") for line in data.decode("utf-8-sig").split("\n"))
        return pa.array([line for line in lines if line.strip()], pa.string())
    except (KeyError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(
            f"--ids {uri} is not a list of ids: {error}; write one per line, or a column called id"
        ) from error


def _csv_ids(data: bytes, delimiter: str) -> pa.Array:
    options = pyarrow.csv.ConvertOptions(include_columns=["id"], column_types={"id": pa.string()})
    parsing = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    return pyarrow.csv.read_csv(io.BytesIO(data), parse_options=parsing, convert_options=options)["id"].combine_chunks()


def draw_sample(listing: pa.Table, count: int, seed: int) -> pa.Table:
    """`count` samples drawn at random, all of them where there are fewer, in the listing's order. Which ones depends on the
    seed and each one's id alone; those of a smaller count are among those of a larger one.

    Args:
        listing: With unique ids.
        count: At least 1.
        seed: Of the draw.
    """
    if count >= len(listing):
        return listing
    lots = ((_lot(seed, identity), row) for row, identity in enumerate(_ids(listing)))
    return listing.take(pa.array(sorted(row for _, row in heapq.nsmallest(count, lots))))


def _ids(listing: pa.Table):
    for chunk in listing["id"].chunks:
        yield from chunk.to_pylist()


def _lot(seed: int, identity: str) -> bytes:
    return hashlib.sha256(f"{seed}:{identity}".encode()).digest()[:8]
