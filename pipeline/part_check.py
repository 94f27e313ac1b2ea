"""One part file, read as a whole and held against the plan and against what it says of itself."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..engine.errors import StorageError
from ..engine.statuses import OK, STATUSES
from .location import bytes_of, child, locate
from .part_names import part_path
from .retries import with_retries
from .summaries import PartSummary, stored_summary, summarise

SHOWN = 3


@dataclass(frozen=True)
class PartCheck:
    """What was found in one file."""

    index: int
    problems: tuple[str, ...] = ()
    """What is wrong with its content; deleting and recomputing it repairs that."""
    unreadable: str | None = None
    """The storage did not give it, so nothing is known of its content."""
    summary: PartSummary | None = None
    """Made anew from its rows; None if they cannot be read."""
    schema: pa.Schema | None = None
    ids: tuple[str, str] | None = None
    """The smallest and the largest."""


def check_part(out: str, index: int, planned: int) -> PartCheck:
    """Read the part `index`, which should hold `planned` samples; problems are returned, not raised."""
    uri = child(out, part_path(index))
    fs, path = locate(uri)
    try:
        data = with_retries(lambda: bytes_of(fs, path), f"read {uri}")
    except StorageError as error:
        return PartCheck(index, unreadable=str(error))
    try:
        table = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()
        table.validate(full=True)
        summary = summarise(table)
        problems = tuple(_problems(table, summary, planned))
        limits = pc.min_max(table["id"]).as_py()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception as error:  # damaged bytes may fail anywhere in the decoders, with any error
        return PartCheck(index, (f"cannot be decoded: {type(error).__name__}: {error}",))
    ids = (limits["min"], limits["max"]) if limits["min"] is not None else None
    return PartCheck(index, problems, None, summary, table.schema, ids)


def _problems(table: pa.Table, summary: PartSummary, planned: int) -> Iterator[str]:
    if summary.samples != planned:
        yield f"holds {summary.samples} samples, planned were {planned}"
    if summary.rows != summary.samples and (twice := _repeated(table)):
        yield f"holds {twice}"
    says = stored_summary(table.schema.metadata)
    if says is not None and says != summary:
        what = (
            "other content than its digest says"
            if says.digest != summary.digest
            else "other totals than its footer says"
        )
        yield f"holds {what}"
    if unknown := sorted(set(summary.statuses) - set(STATUSES)):
        yield f"holds the unknown status {unknown[0]!r}"
    for name in ("map", "map_png", "score"):
        if name in table.column_names and (wrong := _null_where_ok(table, name)):
            yield f"has no {name} in {wrong} of its ok rows"


def _repeated(table: pa.Table) -> str | None:
    keys = zip(*(table[name].to_pylist() for name in ("id", "target", "method")), strict=True)
    found = [(key[0], count) for key, count in Counter(keys).items() if count > 1]
    return f"the id {found[0][0]!r} {found[0][1]} times" if found else None


def _null_where_ok(table: pa.Table, name: str) -> int:
    fine = pc.equal(table["status"], OK)  # pyright: ignore[reportAttributeAccessIssue]
    return pc.sum(pc.and_(fine, pc.is_null(table[name]))).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
