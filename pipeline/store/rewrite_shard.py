"""The rows of one committed shard replaced where they lie: in its own part, or in the merged file that holds it."""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import StorageError
from ...statuses import OK
from ..storage.compare_and_swap import exchange
from .committed_shards import file_of
from .parquet_bytes import table_to_parquet, tables_to_parquet
from .part_files import PartFile
from .part_names import MAPS
from .part_origin import expected_run, foreign
from .part_reader import shard_tables
from .part_summary import PartSummary, stored_summaries, stored_summary, summarise, with_summaries, with_summary
from .run_file import find_run
from .schema import row_keys

Change = Callable[[pa.Table], pa.Table | None]
LOOKS = 5
"""Times that a file may go from under us, because it was merged into another one."""


def change_shard(out: str, index: int, change: Change, folder: str = MAPS, run: str | None = None) -> bool:
    """Replace the rows of a shard by what `change` makes of them, in one atomic step.

    Args:
        out: The run's directory.
        index: A committed shard.
        change: Gets the rows, gives the new ones, or None to leave them. May be called again.
        folder: Where in `out` the parts lie.
        run: Identity of the run that changes the rows; None: that of the directory.

    Returns:
        Whether something was written.

    Raises:
        StorageError: When storage fails, or the file is damaged; it is then as it was.
    """
    run = run or (expected_run(find_run(out)) if folder == MAPS else None)
    for look in range(LOOKS):
        file = file_of(out, index, folder)
        try:
            return exchange(file.uri(out), lambda data, file=file: _changed(out, file, index, change, data, run))
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError) or look == LOOKS - 1:
                raise
    raise AssertionError  # the last look returns or raises


def _changed(out: str, file: PartFile, index: int, change: Change, data: bytes, run: str | None) -> bytes | None:
    try:
        opened = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        tables = dict(shard_tables(opened, file))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {file.uri(out)}: {error}; see `heatlas verify {out}`") from error
    metadata = opened.schema_arrow.metadata
    own_summary = stored_summary(metadata) if file.first == file.last else None
    several = stored_summaries(metadata) or () if file.first != file.last else ()
    summaries = dict(zip(file.shards, several, strict=True)) if several else {}
    summary = own_summary or summaries.get(index)
    origin = summary.origin if summary else None
    if wrong := foreign(origin, run, index):
        raise StorageError(f"{file.uri(out)} {wrong}; see `heatlas verify {out}`")
    new = change(tables[index])
    if new is None:
        return None
    if file.first == file.last:
        return table_to_parquet(with_summary(new, origin))
    return merged_bytes({**tables, index: new}, {**summaries, index: summarise(new, origin=origin)})


def merged_bytes(tables: dict[int, pa.Table], summaries: dict[int, PartSummary]) -> bytes:
    """The bytes of a merged file: rows and totals by shard, in order of the shards."""
    first = next(iter(tables.values()))
    return tables_to_parquet(tables.values(), with_summaries(first.schema, summaries.values()))


def merge(stored: pa.Table, new: pa.Table) -> pa.Table | None:
    """The stored rows in their order, error rows of an id that was computed again replaced by its new rows; None if there are none.

    A target that is `ok` in the store keeps that row; the id's other new rows stand where its first error row stood.
    """
    good = {key for key, fine in zip(row_keys(stored), _is_ok(stored), strict=True) if fine}
    fresh: dict[str, list[int]] = {}
    for number, key in enumerate(row_keys(new)):
        rows = fresh.setdefault(key[0], [])
        if key not in good:
            rows.append(len(stored) + number)
    old, wanted, placed = list(range(len(stored))), [], set()
    for row, (key, fine) in enumerate(zip(row_keys(stored), _is_ok(stored), strict=True)):
        if fine or key[0] not in fresh:
            wanted.append(row)
        elif key[0] not in placed:
            placed.add(key[0])
            wanted += fresh[key[0]]
    if wanted == old:
        return None
    same_schema = new.select(stored.column_names).cast(stored.schema)
    return (
        pa.concat_tables([stored, same_schema]).take(pa.array(wanted)).replace_schema_metadata(stored.schema.metadata)
    )


def _is_ok(table: pa.Table) -> list[bool]:
    return pc.equal(table["status"], OK).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
