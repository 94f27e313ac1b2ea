"""Several stores read as one: runs of the same model and method over different images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from ...errors import RunMismatchError, UsageError
from ..storage.location import locate
from .identity import differences_between
from .part_files import PartFile
from .reader import StoreReader, open_store
from .schema import METADATA_KEY, metric_columns, read_metadata
from .sql import MEMBER, STORED, asking, connect_rows, file_name

if TYPE_CHECKING:
    import duckdb

OWN_OF_A_RUN = (
    "plan",
    "data_root",
    "versions",
    "batch_size",
    "threads",
    "floors",
    "sanity",
    "forward",
    "compile",
    "fold_bn",
    "schema",
)
"""Entries of the fingerprint in which members may differ: which images, and what changes last bits or how many rows have a column. Columns
and definitions are compared by themselves."""
_EXAMPLES = 3
Union = TypeVar("Union", bound="StoreUnion")


@dataclass(frozen=True)
class MemberFile(PartFile):
    """A file of one of several stores."""

    number: int = 0
    """Of the store, in the order given."""
    out: str = ""

    def uri(self, out: str) -> str:
        """The full place, in its own store, whatever `out` says."""
        return super().uri(self.out)

    def __lt__(self, other: object) -> bool:
        """By store, then by shard."""
        if not isinstance(other, MemberFile):
            return NotImplemented
        return (self.number, self.first, self.last) < (other.number, other.first, other.last)


class StoreUnion(StoreReader):
    """Rows and maps of several runs over different images, in the order of the stores; each row in the store that holds it.

    Reads as one store does. What members have under one name must be one thing: model, method, its settings, and the definitions of
    the metrics are compared when it is opened. A column that only some members have is null in the rows of the others.
    """

    def __init__(self, members: Sequence[StoreReader]):
        self.members = tuple(members)
        """The stores, opened one by one."""
        self.uri = " + ".join(member.uri for member in self.members)
        """For people; the stores' own places are `members[0].uri` and so on."""
        refuse_mixed_stores(self.members)
        self.run = common_run([member.run for member in self.members])
        """What the members have in common."""
        self.parts = tuple(shard for member in self.members for shard in member.parts)
        self._use_members()
        if len(self.members) > 1:
            refuse_shared_ids(self)

    def _use_members(self) -> None:
        self.schema = union_schema(self.members)
        self.metadata = read_metadata(self.schema)
        self.files = tuple(
            MemberFile(file.first, file.last, file.size, file.folder, number, member.uri)
            for number, member in enumerate(self.members) for file in member.files
        )  # fmt: skip
        self._by_name = {file_name(file.uri("")): file for file in self.files}
        self._connect()

    def _connected(self, *, locked: bool = False) -> duckdb.DuckDBPyConnection:
        stores = [member.stored_rows() for member in self.members]
        return connect_rows(stores, self.schema.names, self.class_names, locked=locked)

    def tables_of(self, file: PartFile, names: Sequence[str], rows: Sequence[int] | None = None) -> Iterator[pa.Table]:
        """As of one store, with nulls in columns that the file's store lacks."""
        if not isinstance(file, MemberFile):
            raise TypeError(f"{file.name} does not say which store it is in")
        member = self.members[file.number]
        own = [name for name in names if name in member.schema.names]
        wanted = pa.schema([self.schema.field(name) for name in names])
        for table in member.tables_of(file, own or ["id"], rows):
            columns = [table[field.name] if field.name in own else pa.nulls(len(table), field.type) for field in wanted]
            yield pa.table(columns, schema=wanted)

    def _file(self, name: str) -> PartFile:
        return self._by_name[name]

    def _follow(self) -> bool:
        moved = [member for member in self.members if member._follow()]
        if moved:
            self._use_members()
        return bool(moved)


def open_union(uris: Sequence[str | os.PathLike[str]], kind: type[Union]) -> Union:
    """Open several stores as one.

    Args:
        uris: Places of the stores, at least one, none of them twice.
        kind: What to open them as.

    Raises:
        UsageError: If there are none, or one comes twice.
        RunMismatchError: If they are of different models or methods, or have ids in common.
        StorageError: As `open_store`.
    """
    places = [os.fspath(uri) for uri in uris]
    if not places:
        raise UsageError("no store is given; give the places of one or more, such as heatlas.open(['a', 'b'])")
    roots = [_root(place) for place in places]
    if twice := [place for place, root in zip(places, roots, strict=True) if roots.count(root) > 1]:
        raise UsageError(f"the store {twice[0]} is given {len(twice)} times; give each store once")
    return kind([open_store(place) for place in places])


def _root(uri: str) -> str:
    fs, path = locate(uri)
    return f"{fs.protocol}:{os.path.realpath(path)}" if uri == path or path.startswith("/") else f"{fs.protocol}:{path}"


def refuse_mixed_stores(members: Sequence[StoreReader]) -> None:
    """Rows of one table must mean one thing.

    Raises:
        RunMismatchError: Naming what differs, and in which store.
    """
    first = members[0]
    for other in members[1:]:
        lines = differences_between(_essence(first), _essence(other))
        lines += [f"  metric {name}: {ours} and {theirs}" for name, ours, theirs in _other_definitions(first, other)]
        lines += [
            f"  column {name}: {first.schema.field(name).type} and {other.schema.field(name).type}"
            for name in first.schema.names
            if name in other.schema.names and first.schema.field(name).type != other.schema.field(name).type
        ]
        if lines:
            raise RunMismatchError(
                f"{first.uri} and {other.uri} cannot be read as one store, because they differ in\n" + "\n".join(lines) +
                "\nopen them one by one; `heatlas compare` sets two runs against each other"
            )  # fmt: skip


def _essence(store: StoreReader) -> dict[str, Any]:
    fingerprint = {key: value for key, value in store.run["fingerprint"].items() if key not in OWN_OF_A_RUN}
    return {**fingerprint, "class names": list(store.class_names), "map": store.metadata.get("map")}


def _other_definitions(first: StoreReader, other: StoreReader) -> Iterator[tuple[str, str, str]]:
    ours, theirs = (store.metadata.get("metrics", {}) for store in (first, other))
    for name in metric_columns(first.schema):
        definitions = [facts.get(name, {}).get("definition") for facts in (ours, theirs)]
        if None not in definitions and definitions[0] != definitions[1]:
            yield name, definitions[0], definitions[1]


def refuse_shared_ids(union: StoreUnion) -> None:
    """An id names one image of one store.

    Raises:
        RunMismatchError: With examples.
    """
    query = f"SELECT id, count(DISTINCT {MEMBER}) AS stores FROM {STORED} GROUP BY id HAVING stores > 1"
    with asking(query):
        shared = union._database.execute(
            f"SELECT id, count(*) OVER () FROM ({query}) ORDER BY id LIMIT {_EXAMPLES}"
        ).fetchall()
    if shared:
        examples = ", ".join(repr(row[0]) for row in shared)
        raise RunMismatchError(
            f"{shared[0][1]} ids are in more than one of {union.uri}, such as {examples}; stores read as one hold different images: "
            "compare such stores with `heatlas compare`, or open them one by one"
        )


def common_run(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `_run.json` says in all of them; what differs is left out."""
    return {
        "schema_version": max((run.get("schema_version") or 0 for run in runs), default=None),
        "created": min(str(run.get("created")) for run in runs),
        "settings": _common([run["settings"] for run in runs]),
        "fingerprint": _common([run["fingerprint"] for run in runs]),
    }


def _common(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = values
    result: dict[str, Any] = {}
    for key, value in first.items():
        theirs = [other.get(key) for other in others]
        if all(their == value for their in theirs):
            result[key] = value
        elif isinstance(value, dict) and all(isinstance(their, dict) for their in theirs):
            result[key] = _common([value, *theirs])  # pyright: ignore[reportArgumentType]
    return result


def union_schema(members: Sequence[StoreReader]) -> pa.Schema:
    """The columns of the first, and behind its own those that only others have; metadata in which metrics are those of all."""
    fields = {field.name: field for member in members for field in member.schema}
    facts = dict(members[0].metadata)
    for key in ("metrics", "extra_columns"):
        merged = {**{name: value for member in members for name, value in member.metadata.get(key, {}).items()}}
        if merged:
            facts[key] = merged
    metadata = {**(members[0].schema.metadata or {}), METADATA_KEY: json.dumps(facts, sort_keys=True).encode()}
    return pa.schema(list(fields.values()), metadata)
