"""The columns that evaluations add to the rows of a run, joined by id, object, target and method, as tables and as SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from .committed_shards import done_shards
from .evaluations import KEYS, Evaluation, column_owners, list_evaluations
from .part_files import PartFile
from .part_reader import open_file, read_file, row_groups
from .schema import METADATA_KEY, metric_columns, read_metadata, row_keys
from .sql import Joined


@dataclass(frozen=True)
class AddedColumns:
    """What was added to one store, as it was when it was opened.

    A row that no evaluation has measured (yet, or because it has no map) has nulls there.
    """

    out: str
    owners: dict[str, Evaluation]
    """The evaluation that each added column is read from."""
    files: dict[str, tuple[PartFile, ...]]
    """Files with what is measured, by the evaluation's folder."""

    @classmethod
    def of(cls, out: str, stored: pa.Schema, parts: Sequence[int]) -> AddedColumns:
        """Find them.

        Args:
            out: Directory or URI of the store.
            stored: Columns of the run's own files, which win over added ones of the same name.
            parts: Shards that the store has.
        """
        owners = column_owners(list_evaluations(out), stored.names)
        folders = {evaluation.folder for evaluation in owners.values()}
        return cls(
            out, owners, {folder: tuple(done_shards(out, folder).files_with(parts)) for folder in sorted(folders)}
        )

    def extended(self, stored: pa.Schema) -> pa.Schema:
        """The schema with the added columns behind the run's own metrics, and their meaning in its metadata."""
        own = metric_columns(stored)
        place = stored.get_field_index(own[-1]) + 1 if own else stored.get_field_index("mask_counts")
        facts = read_metadata(stored)
        for column, evaluation in self.owners.items():
            facts.setdefault("metrics", {})[column] = dict(evaluation.metrics[column])
        fields = [*stored]
        fields[place:place] = [pa.field(column, pa.float64()) for column in self.owners]
        return pa.schema(fields, {**(stored.metadata or {}), METADATA_KEY: json.dumps(facts, sort_keys=True).encode()})

    def tables(self, file: PartFile, names: Sequence[str], rows: Sequence[int] | None = None) -> Iterator[pa.Table]:
        """The rows of a file in stored order, with some columns of either kind in the order asked for, a row group at a time.

        Args:
            file: One of the run's.
            names: Columns.
            rows: Which rows of the file, in ascending order; None for all.

        Raises:
            StorageError: If a file cannot be read.
        """
        measured = self._measured(file, [name for name in names if name in self.owners])
        own = [name for name in names if name not in self.owners]
        with open_file(self.out, file) as opened:
            for table in row_groups(opened, [*dict.fromkeys([*own, *(KEYS if measured else ())])], rows):
                yield self._extended(table, measured).select(list(names))

    def joins(self) -> list[Joined]:
        """What DuckDB joins to the rows, an evaluation each."""
        return [
            Joined(
                [file.uri(self.out) for file in files],
                [column for column in self.owners if self.owners[column].folder == folder],
            )
            for folder, files in self.files.items()
        ]

    def _measured(self, file: PartFile, names: Sequence[str]) -> list[Measured]:
        """What was measured of the rows of a file."""
        measured = []
        for folder, files in self.files.items():
            columns = [name for name in names if self.owners[name].folder == folder]
            if columns:
                there = [other for other in files if other.first <= file.last and other.last >= file.first]
                tables = [read_file(self.out, other, [*KEYS, *columns]) for other in there]
                measured.append(Measured.of(tables, columns))
        return measured

    @staticmethod
    def _extended(table: pa.Table, measured: Sequence[Measured]) -> pa.Table:
        if measured:
            keys = row_keys(table)
            for added in measured:
                for name, values in added.of_rows(keys).items():
                    table = table.append_column(name, values)
        return table


@dataclass(frozen=True)
class Measured:
    """Columns of one evaluation, by the rows that they belong to."""

    values: pa.Table
    places: dict[tuple, int]

    @classmethod
    def of(cls, tables: Sequence[pa.Table], columns: Sequence[str]) -> Measured:
        values = pa.concat_tables([pa.schema([(name, pa.float64()) for name in columns]).empty_table(),
                                   *(table.select(columns).replace_schema_metadata() for table in tables)])  # fmt: skip
        keys = (key for table in tables for key in row_keys(table))
        return cls(values.combine_chunks(), {key: place for place, key in enumerate(keys)})

    def of_rows(self, keys: Sequence[tuple]) -> dict[str, pa.ChunkedArray]:
        """The columns beside these rows, null where nothing was measured."""
        order = pa.array([self.places.get(key) for key in keys], pa.int64())
        return {name: self.values[name].take(order) for name in self.values.column_names}
