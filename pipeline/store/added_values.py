"""Put columns of numbers beside a store's rows, in place of earlier ones of the same names; the run's own files are not touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...errors import UsageError
from ...statuses import OK
from ..storage.atomic_write import put, remove
from ..storage.location import child, locate, names_in
from .committed_shards import read_part, row_totals
from .evaluations import CLAIM_FILE, KEYS, Evaluation, claim_evaluation, list_evaluations
from .parquet_bytes import table_to_parquet
from .part_names import part_path
from .part_summary import with_summary
from .schema import row_keys
from .success_file import write_success

if TYPE_CHECKING:
    from .reader import StoreReader

Key = tuple[str, str | None, int | None, str]
"""Id, object (None: the whole image), target and method of a row."""
OTHERS = ("uri", "status", "error", "n_forwards", "seconds", "device")


def write_values(
    atlas: StoreReader,
    values: Mapping[Key, Mapping[str, float | None]],
    facts: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> Evaluation:
    """Write columns as an evaluation beside the store; every reader then finds them among the store's columns.

    Args:
        atlas: The store.
        values: Numbers by row and column; rows that are not named, or not `ok`, have nulls.
        facts: What each column means, by name, with at least `definition`.
        settings: What the values depend on, as JSON values.

    Raises:
        UsageError: If the run's own files have a column of that name.
        StorageError: If storage fails.
    """
    replaced = [old for old in list_evaluations(atlas.uri) if facts.keys() & old.metrics.keys()]
    own = atlas.run.get("fingerprint", {}).get("metrics", ())
    if taken := [
        name for name in facts if name in atlas.schema.names and not any(name in old.metrics for old in replaced)
    ]:
        raise UsageError(f"{atlas.uri} has a column {taken[0]!r} of its own ({', '.join(map(str, own))}); explain the data anew without it")  # fmt: skip
    for old in replaced:
        remove_evaluation(atlas.uri, old)
    evaluation = claim_evaluation(atlas.uri, atlas.run, facts, settings)
    for index in atlas.parts:
        table = part_values(read_part(atlas.uri, index, [*KEYS, *OTHERS]), values, list(facts))
        put(child(atlas.uri, part_path(index, evaluation.folder)), table_to_parquet(with_summary(table)))
    write_success(child(atlas.uri, evaluation.folder), row_totals(atlas.uri, folder=evaluation.folder))
    return evaluation


def part_values(rows: pa.Table, values: Mapping[Key, Mapping[str, float | None]], names: list[str]) -> pa.Table:
    """The rows of a shard that are ok, with the columns; their costs are those of the command, so none here."""
    table = rows.filter(pa.array([status == OK for status in rows["status"].to_pylist()], pa.bool_()))
    own = [values.get(key, {}) for key in row_keys(table)]
    for name, kind, value in (("n_forwards", pa.int64(), 0), ("seconds", pa.float64(), 0.0)):
        table = table.set_column(table.column_names.index(name), name, pa.array([value] * len(table), kind))
    for name in names:
        table = table.append_column(name, pa.array([numbers.get(name) for numbers in own], pa.float64()))
    return table.replace_schema_metadata()


def remove_evaluation(out: str, evaluation: Evaluation) -> None:
    """Delete an evaluation: its claim first, without which nobody reads the rest."""
    folder = child(out, evaluation.folder)
    remove(child(folder, CLAIM_FILE))
    fs, path = locate(folder)
    for name in names_in(fs, path):
        remove(child(folder, name))
