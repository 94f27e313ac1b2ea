"""Append decisions to `STORE/decisions/` and read all of them back; nothing there is ever changed."""

from __future__ import annotations

import getpass
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import HeatlasError, StorageError
from ..storage.atomic_write import put_if_absent
from ..storage.location import child, locate, sizes_in
from .decision import SCHEMA, Decision, decision_of
from .ulid import new_ulids

FOLDER = "decisions"
LARGEST_BYTES = 1_000_000_000
"""Size of a file of decisions that is still read."""


def append_decisions(out: str, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """Write decisions as one new file, with their ids, and with the user and the time where they name none.

    Raises:
        StorageError: If the file cannot be written; nothing of it is then visible.
    """
    if not decisions:
        return ()
    now, who = datetime.now(UTC), user_name()
    written = tuple(
        replace(decision, decision_id=ulid, who=decision.who or who, when=decision.when or now)
        for decision, ulid in zip(decisions, new_ulids(len(decisions)), strict=True)
    )
    table = pa.Table.from_pylist([decision.record() for decision in written], schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    uri = child(out, f"{FOLDER}/{written[0].decision_id}.parquet")
    if not put_if_absent(uri, buffer.getvalue()):
        raise StorageError(f"{uri} is there already; run the command again")
    return written


def read_decisions(out: str) -> list[Decision]:
    """Every decision ever written, undone ones included, by time.

    Raises:
        StorageError: If a file cannot be read or holds something else.
    """
    place = child(out, FOLDER)
    fs, path = locate(place)
    decisions: list[Decision] = []
    for name, size in sorted(sizes_in(fs, path).items()):
        if not name.endswith(".parquet") or name.startswith("."):
            continue
        try:
            if size > LARGEST_BYTES:
                raise StorageError(f"it has {size:,} bytes, more than the {LARGEST_BYTES:,} that are read")
            with fs.open(f"{path}/{name}", "rb") as file:
                table = pq.read_table(pa.PythonFile(file)).select(SCHEMA.names).cast(SCHEMA)
            decisions += [decision_of(record) for record in table.to_pylist()]
        except (pa.ArrowException, OSError, KeyError, ValueError, HeatlasError) as error:
            raise StorageError(
                f"cannot read the decisions in {place}/{name}: {error}; move the file away if it is none of heatlas"
            ) from error
    return sorted(decisions, key=lambda decision: (decision.when or datetime.min.replace(tzinfo=UTC), decision.decision_id or ""))  # fmt: skip


def user_name() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
