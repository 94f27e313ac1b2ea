"""One file of a store, read as a whole and held against the plan and against what it says of itself."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import StorageError
from ...statuses import OK, STATUSES
from ..storage.backoff import with_retries
from ..storage.location import bytes_of, locate
from .earlier_columns import RENAMED_COLUMNS
from .part_files import PartFile
from .part_origin import foreign, ids_digest
from .part_reader import shard_tables
from .part_summary import PartSummary, stored_summaries, stored_summary, summarise
from .schema import row_keys

SHOWN = 3


@dataclass(frozen=True)
class PartCheck:
    """What was found in one file."""

    file: PartFile
    problems: tuple[str, ...] = ()
    """What is wrong with its content; deleting and recomputing it repairs that."""
    unreadable: str | None = None
    """The storage did not give it, so nothing is known of its content."""
    summaries: tuple[PartSummary, ...] = ()
    """Of every shard in it, made anew from its rows; empty if they cannot be read."""
    schema: pa.Schema | None = None
    ids: tuple[str, str] | None = None
    """The smallest and the largest."""


def check_part(
    out: str, file: PartFile, planned: Mapping[int, int], run: str | None = None, ids: Mapping[int, str] | None = None
) -> PartCheck:
    """Read a file whose shards should hold `planned` samples each, of the run of that identity; problems are returned, not raised.

    Args:
        out: The run's directory.
        file: One of its files.
        planned: Samples by shard.
        run: What the footers must say of the run, see `expected_run`.
        ids: Digest of the planned ids by shard, see `planned_ids`.
    """
    uri = file.uri(out)
    fs, path = locate(uri)
    try:
        data = with_retries(lambda: bytes_of(fs, path), f"read {uri}")
    except StorageError as error:
        return PartCheck(file, unreadable=str(error))
    summaries: list[PartSummary] = []
    problems: list[str] = []
    limits: list[str] = []
    try:
        opened = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        says = _says(opened, file)
        for place, (shard, table) in enumerate(shard_tables(opened, file)):
            table.validate(full=True)
            said = says[place]
            origin = None if said is None else said.origin
            summaries.append(summarise(table, origin=origin))
            where = "" if file.first == file.last else f"shard {shard} "
            if wrong := foreign(origin, run, shard):
                problems.append(f"{where}{wrong}")
            problems += [f"{where}{text}" for text in _problems(table, summaries[-1], said, planned[shard])]
            if ids and ids_digest(table["id"].to_pylist()) != ids[shard]:
                problems.append(f"{where}holds other samples than planned")
            ends = pc.min_max(table["id"]).as_py()  # pyright: ignore[reportAttributeAccessIssue]
            limits += [limit for limit in ends.values() if limit is not None]
    except Exception as error:  # damaged bytes may fail anywhere in the decoders, with any error
        return PartCheck(file, (f"cannot be decoded: {type(error).__name__}: {error}",))
    ends_of_ids = (min(limits), max(limits)) if limits else None
    return PartCheck(file, tuple(problems), None, tuple(summaries), opened.schema_arrow, ends_of_ids)


def _says(opened: pq.ParquetFile, file: PartFile) -> Sequence[PartSummary | None]:
    """What the footer says of every shard."""
    if file.first == file.last:
        return [stored_summary(opened.schema_arrow.metadata)]
    return stored_summaries(opened.schema_arrow.metadata) or [None] * len(file.shards)


def _problems(table: pa.Table, summary: PartSummary, says: PartSummary | None, planned: int) -> Iterator[str]:
    if summary.samples != planned:
        yield f"holds {summary.samples} samples, planned were {planned}"
    if summary.rows != summary.samples and (twice := _repeated(table)):
        yield f"holds {twice}"
    if says is not None and says != summary:
        what = (
            "other content than its digest says"
            if says.digest != summary.digest
            else "other totals than its footer says"
        )
        yield f"holds {what}"
    if unknown := sorted(set(summary.statuses) - set(STATUSES)):
        yield f"holds the unknown status {unknown[0]!r}"
    for name in ("map", "map_png", "confidence", *RENAMED_COLUMNS):
        if name in table.column_names and (wrong := _null_where_ok(table, name)):
            yield f"has no {name} in {wrong} of its ok rows"


def _repeated(table: pa.Table) -> str | None:
    repeated = [(key[0], count) for key, count in Counter(row_keys(table)).items() if count > 1]
    return f"the id {repeated[0][0]!r} {repeated[0][1]} times" if repeated else None


def _null_where_ok(table: pa.Table, name: str) -> int:
    fine = pc.equal(table["status"], OK)  # pyright: ignore[reportAttributeAccessIssue]
    return pc.sum(pc.and_(fine, pc.is_null(table[name]))).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
