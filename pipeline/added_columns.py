"""The columns that evaluations add to the rows of a run, joined by id, target and method, as tables and as SQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from .evaluations import KEYS, Evaluation, column_owners, list_evaluations
from .part_names import part_uris
from .query import Joined
from .schema import METADATA_KEY, metric_columns, read_metadata
from .store import done_shards, read_part


@dataclass(frozen=True)
class AddedColumns:
    """What was added to one store, as it was when it was opened.

    A row that no evaluation has measured (yet, or because it has no map) has nulls there.
    """

    out: str
    owners: dict[str, Evaluation]
    """The evaluation that each added column is read from."""
    parts: dict[str, tuple[int, ...]]
    """Shards that are measured, by the evaluation's folder."""

    @classmethod
    def of(cls, out: str, stored: pa.Schema, parts: Sequence[int]) -> AddedColumns:
        """Find them.

        Args:
            out: Directory or URI of the store.
            stored: Columns of the run's own files, which win over added ones of the same name.
            parts: Shards that the store has.
        """
        owners = column_owners(list_evaluations(out), stored.names)
        folders = {one.folder for one in owners.values()}
        wanted = set(parts)
        return cls(
            out, owners, {one: tuple(index for index in done_shards(out, one) if index in wanted) for one in folders}
        )

    def extended(self, stored: pa.Schema) -> pa.Schema:
        """The schema with the added columns behind the run's own metrics, and their meaning in its metadata."""
        own = metric_columns(stored)
        place = stored.get_field_index(own[-1]) + 1 if own else stored.get_field_index("mask_counts")
        facts = read_metadata(stored)
        for column, one in self.owners.items():
            facts.setdefault("metrics", {})[column] = dict(one.metrics[column])
        fields = [*stored]
        fields[place:place] = [pa.field(column, pa.float64()) for column in self.owners]
        return pa.schema(fields, {**(stored.metadata or {}), METADATA_KEY: json.dumps(facts, sort_keys=True).encode()})

    def read(self, part: int, names: Sequence[str]) -> pa.Table:
        """The rows of a shard in stored order, with some columns of either kind in the order asked for.

        Raises:
            StorageError: If a file cannot be read.
        """
        added = [name for name in names if name in self.owners]
        if not added:
            return read_part(self.out, part, names)
        own = [name for name in names if name not in self.owners]
        table = read_part(self.out, part, [*dict.fromkeys([*own, *KEYS])])
        rows = list(zip(*(table[key].to_pylist() for key in KEYS), strict=True))
        for folder in self.parts:
            columns = [name for name in added if self.owners[name].folder == folder]
            for name, values in self._aligned(part, folder, columns, rows).items():
                table = table.append_column(name, values)
        return table.select(list(names))

    def joins(self) -> list[Joined]:
        """What DuckDB joins to the rows, an evaluation each."""
        return [
            Joined(
                part_uris(self.out, parts, folder), [one for one in self.owners if self.owners[one].folder == folder]
            )
            for folder, parts in self.parts.items()
        ]

    def _aligned(self, part: int, folder: str, columns: Sequence[str], rows: Sequence[tuple]) -> dict[str, pa.Array]:
        if not columns or part not in self.parts[folder]:
            return {name: pa.nulls(len(rows), pa.float64()) for name in columns}
        found = read_part(self.out, part, [*KEYS, *columns], folder)
        places = {key: place for place, key in enumerate(zip(*(found[key].to_pylist() for key in KEYS), strict=True))}
        order = pa.array([places.get(row) for row in rows], pa.int64())
        return {name: found[name].combine_chunks().take(order) for name in columns}
