"""`heatlas migrate`: a store of an earlier version, written anew beside it with the columns of today.

The store that is there is read and never changed. Columns that it lacks are filled where its own files say what belongs there (names of
classes) and are null otherwise; nothing is computed. Every part comes with its checksums, and is put if absent: cut short anywhere, the
same command does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...errors import RunMismatchError, StorageError
from ..settings.renamed import current_facts
from ..storage.atomic_write import put_if_absent
from ..storage.backoff import with_retries
from ..storage.location import bytes_of, child, locate, names_in
from ..text import counted
from .committed_shards import done_shards, read_file_schema, row_totals
from .earlier_columns import renamed_table
from .evaluations import CLAIM_FILE, METRICS_FOLDER, list_evaluations, run_digest
from .identity import SCHEMA_FACT, schema_digest
from .merge_parts import read_shards
from .parquet_bytes import table_to_parquet
from .part_files import DoneShards, PartFile
from .part_names import MAPS, SUCCESS
from .part_origin import STAMPED_SINCE, PartOrigin, run_identity
from .part_summary import summarise, with_summary, without_summary
from .rewrite_shard import merged_bytes
from .run_file import RUN_FILE, find_run, read_run
from .schema import METADATA_KEY, SCHEMA_VERSION, StoreLayout, extra_columns, metric_columns, read_metadata
from .success_file import read_success, write_success

_LEFT_BEHIND = frozenset({MAPS, METRICS_FOLDER, RUN_FILE, SUCCESS, "_logs"})
"""Written anew, or of no use in another place."""
_EVALUATION = "evaluation"


@dataclass(frozen=True)
class Migrated:
    """What a call did."""

    out: str
    to: str
    version: int | None
    """Of the store that was read."""
    written: int
    """Files with rows; those that an earlier call wrote are not counted."""
    added: tuple[str, ...]
    """Columns that the store lacked."""

    def text(self) -> str:
        """For people, ready to print."""
        if self.to == self.out:
            return f"{self.out} has the columns of today already; nothing was written"
        new = f"; new columns: {', '.join(self.added)}" if self.added else ""
        return f"{self.to}: {counted(self.written, 'file')} written, store version {SCHEMA_VERSION}{new}; {self.out} is as it was"


def migrate_store(out: str, to: str) -> Migrated:
    """Write the store `out` anew at `to`, with the columns of today.

    Args:
        out: Directory or URI of a run, finished or not.
        to: An empty or new place, or one where the same call was cut short.

    Raises:
        UsageError: If `out` is no store, or `to` holds something else.
        StorageError: If storage fails or a part is damaged; the same call does the rest.
    """
    run, listing = read_run(out), done_shards(out)
    version = run.get("schema_version")
    if not listing:
        raise StorageError(f"{out} has no finished shard, so there is nothing to migrate; begin a new run instead")
    stored = read_shards(out, listing.files[0])[listing.files[0].first][0].schema
    new = schema_now(stored)
    if version == SCHEMA_VERSION and without_summary(stored).names == new.names:
        return Migrated(out, out, version, 0, ())
    refuse_other_totals(out)
    fresh = migrated_run(run, new)
    _claim(out, to, fresh)
    identity = run_identity(fresh["fingerprint"])
    stamped = isinstance(version, int) and version >= STAMPED_SINCE
    written = sum(_put_file(out, to, file, new, identity, stamped) for file in listing.files)
    for evaluation in list_evaluations(out):
        written += _migrate_evaluation(out, to, evaluation.name, evaluation.folder, run_digest(fresh))
    _copy_rest(out, to)
    if read_success(out) is not None:
        write_success(to, row_totals(to))
    before = read_file_schema(out, listing.files[0]).names
    return Migrated(out, to, version, written, tuple(name for name in new.names if name not in before))


def refuse_other_totals(out: str) -> None:
    """A concluded store whose parts are not those of which `_SUCCESS` speaks is not written anew as a sound one.

    Raises:
        StorageError: If rows or digest differ.
    """
    says = read_success(out)
    if says is None:
        return
    totals = row_totals(out)
    if wrong := [name for name in ("rows", "digest") if says.get(name) is not None and says[name] != totals[name]]:
        raise StorageError(f"{out} holds other rows than its {SUCCESS} says ({', '.join(wrong)}), so a file was exchanged; `heatlas verify {out}` "
                           "says how to repair the store; then call again")  # fmt: skip


def schema_now(stored: pa.Schema) -> pa.Schema:
    """The schema that this version would write for the columns of an older part."""
    facts, names = read_metadata(stored), set(stored.names)
    shapes = {key: facts[key] for key in ("map", "map_png") if key in facts}
    height, width = _size(shapes.get("map_png") or shapes.get("map") or {"height": 1, "width": 1})
    layout = StoreLayout(
        (height, width), with_map=False, with_png=False, metrics=tuple(metric_columns(stored)),
        extra=tuple(extra_columns(stored).items()),
    )  # fmt: skip
    plain = layout.schema()
    wide = {name: stored.field(name) for name in ("features", "map", "map_png", "floors") if name in names}
    methods = [stored.field(name) for name in facts.get("method_columns", {}) if name in names]
    fields = {field.name: field for field in plain}
    head = [*_until(plain.names, "top_k"), *(name for name in ("features", "map", "map_png") if name in wide)]
    costs = plain.names[plain.names.index("mask_counts") : plain.names.index("precision") + 1]
    order = [*head, *layout.metrics, *(["floors"] if "floors" in wide else []), *costs]
    ordered = [wide.get(name, fields.get(name)) for name in order]
    ordered += [*methods, *(fields[name] for name in extra_columns(stored))]
    metadata = {**(without_summary(stored).metadata or {}), METADATA_KEY: _version_now(facts)}
    return pa.schema([field for field in ordered if field is not None], metadata)


def _until(names: list[str], last: str) -> list[str]:
    return names[: names.index(last) + 1]


def _size(facts: Mapping[str, Any]) -> tuple[int, int]:
    return facts["height"], facts["width"]


def _version_now(facts: Mapping[str, Any]) -> bytes:
    return json.dumps({**facts, "schema_version": SCHEMA_VERSION}, sort_keys=True).encode()


def migrated_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of an older part under today's schema."""
    table = renamed_table(table)
    names = read_metadata(schema).get("class_names") or ()
    columns = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        elif field.name in ("label_name", "prediction_name"):
            indices = table[field.name.removesuffix("_name")].to_pylist()
            columns.append(pa.array([_name(names, index) for index in indices], field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    return pa.table(columns, schema=schema)


def _name(names: list[str] | tuple[str, ...], index: int | None) -> str | None:
    return names[index] if index is not None and 0 <= index < len(names) else None


def migrated_run(run: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """What `_run.json` says of the new store: the same run, whose parts have other columns."""
    fingerprint = {**current_facts(run["fingerprint"]), SCHEMA_FACT: schema_digest(schema)}
    origin = {"schema_version": run.get("schema_version"), "run": run_digest(run)}
    return {**run, "schema_version": SCHEMA_VERSION, "fingerprint": fingerprint, "migrated_from": origin}


def _claim(out: str, to: str, fresh: Mapping[str, Any]) -> None:
    fs, path = locate(to)
    there = [name for name in with_retries(lambda: names_in(fs, path), f"list {to}") if not name.startswith(".")]
    if there and find_run(to) != fresh:
        raise RunMismatchError(f"{to} is not empty; migrate {out} to a new place")
    put_if_absent(child(to, RUN_FILE), (json.dumps(fresh, indent=2) + "\n").encode())


def _put_file(out: str, to: str, file: PartFile, schema: pa.Schema, identity: str | None, stamped: bool) -> int:
    """Write one file anew unless it is there; 1 if it was written. `stamped`: whether its store's parts say where they come from."""
    shards = read_shards(out, file)
    for table, summary in shards.values():
        if summary.origin is not None and not stamped:
            raise StorageError(f"{file.uri(out)} says that it belongs to a run of a later store version, and the store is of an earlier one; "
                               "move the file away, then call again")  # fmt: skip
        if summary.digest is not None and summarise(table).digest != summary.digest:
            raise StorageError(f"{file.uri(out)} holds other content than its digest says; `heatlas verify {out}` says how to repair "
                               "the store; then call again")  # fmt: skip
    tables = {shard: migrated_table(table, schema) for shard, (table, _) in shards.items()}
    origins = {shard: None if identity is None else PartOrigin(identity, shard, "") for shard in tables}
    if file.first == file.last:
        data = table_to_parquet(with_summary(tables[file.first], origins[file.first]))
    else:
        summaries = {shard: summarise(table, origin=origins[shard]) for shard, table in tables.items()}
        data = merged_bytes(tables, summaries)
    return int(put_if_absent(file.uri(to), data))


def _migrate_evaluation(out: str, to: str, name: str, folder: str, run: str) -> int:
    """Metrics that were added later: the same numbers, said to belong to the new store."""
    claim = json.loads(_bytes(child(out, f"{METRICS_FOLDER}/{name}/{CLAIM_FILE}")))
    claim["fingerprint"]["run"] = run
    put_if_absent(child(to, f"{folder}/{CLAIM_FILE}"), (json.dumps(claim, indent=2) + "\n").encode())
    listing: DoneShards = done_shards(out, folder)
    written = 0
    for file in listing.files:
        schema = without_summary(read_shards(out, file)[file.first][0].schema)
        facts = read_metadata(schema)
        if _EVALUATION in facts:
            facts[_EVALUATION]["run"] = run
        schema = schema.with_metadata({**(schema.metadata or {}), METADATA_KEY: _version_now(facts)})
        written += _put_file(out, to, file, schema, None, stamped=True)
    if read_success(child(out, folder)) is not None:
        write_success(child(to, folder), row_totals(to, folder=folder))
    return written


def _copy_rest(out: str, to: str) -> None:
    """Everything else in the store, byte for byte: the plan, decisions, what others put there."""
    fs, path = locate(out)
    for name in with_retries(lambda: names_in(fs, path), f"list {out}"):
        if name in _LEFT_BEHIND or name.startswith("."):
            continue
        root = f"{path.rstrip('/')}/{name}"
        files = [root] if fs.isfile(root) else fs.find(root)
        for file in files:
            inner = file[len(path.rstrip("/")) + 1 :]
            put_if_absent(child(to, inner), _bytes(child(out, inner)))


def _bytes(uri: str) -> bytes:
    fs, path = locate(uri)
    return with_retries(lambda: bytes_of(fs, path), f"read {uri}")
