"""Which row of one run belongs to which of the other, and which rows stay alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import duckdb
import pyarrow as pa

from ...errors import UsageError, did_you_mean
from ...statuses import OK
from ..store.object_rows import OBJECT
from ..store.reader import StoreReader
from ..store.sql import PARTS, literal, quoted, reading_parts
from ..text import counted, shown

PLAIN = ("id", "target", "label", "prediction", "confidence", "status")
Joined = Literal["id and target", "id"]
NAMED = 3


@dataclass(frozen=True)
class Side:
    """One method's rows of one run."""

    atlas: StoreReader
    method: str

    @classmethod
    def of(cls, atlas: StoreReader, method: str | None) -> Side:
        """Choose the method; None for the one with the most rows.

        Raises:
            UsageError: If the store has no row of it.
        """
        with reading_parts(atlas.uri):
            counts = dict(atlas.sql("SELECT method, count(*) FROM atlas GROUP BY method ORDER BY 2 DESC, 1").fetchall())
        if method is not None and method not in counts:
            raise UsageError(f"{atlas.uri} has no row of the method {method!r}{did_you_mean(method, counts)}; it has "
                             f"{', '.join(map(str, counts))}")  # fmt: skip
        return cls(atlas, next(iter(counts)) if method is None else method)

    def rows(self, metrics: Sequence[str]) -> pa.Table:
        """The rows without maps, and where each one's map lies: `file`, `place`."""
        names = ", ".join(quoted(name) for name in (*PLAIN, *metrics))
        names += f", {OBJECT}" if OBJECT in self.atlas.schema.names else f", NULL::VARCHAR AS {OBJECT}"
        with reading_parts(self.atlas.uri):
            return self.atlas.sql(
                f"SELECT {names}, parse_filename(filename) AS file, file_row_number AS place FROM {PARTS} "
                f"WHERE method = {literal(self.method)} ORDER BY filename, file_row_number"
            ).to_arrow_table()

    @property
    def target(self) -> Any:
        """What the run was to explain."""
        return self.atlas.run["settings"].get("target")


@dataclass(frozen=True)
class Pairs:
    """The rows that belong together."""

    sides: tuple[Side, Side]
    joined: Joined
    table: pa.Table
    """One row per pair in the first run's order: `id`, `label`, and `first_...`, `second_...` for the other plain columns, `file`,
    `place` and the metrics."""
    metrics: tuple[str, ...]
    alone: tuple[int, int]
    """Rows without a partner."""
    examples: tuple[list[str], list[str]]
    """Some of their ids."""
    notes: list[str] = field(default_factory=list)
    class_names: tuple[str, ...] = ()
    """The first run's, then those that only the second has; all class indices of the table are places in it. Empty without names."""

    def __len__(self) -> int:
        return self.table.num_rows


def paired(first: Side, second: Side, metrics: Sequence[str]) -> Pairs:
    """Join the rows of two runs.

    Where both have one row per image, by `id`: what a run explains (the prediction, the label) may differ from the other's. Else by
    `id`, `target` and `object_id` (objects are numbered by size, so the same number may be another object of another model).

    Raises:
        UsageError: If nothing belongs together.
    """
    connection = duckdb.connect()
    connection.register("a", first.rows(metrics))
    names_of = [tuple(side.atlas.class_names or ()) for side in (first, second)]
    matched = match_classes(*names_of)
    connection.register("b", _renumbered(second.rows(metrics), matched[1]) if matched else second.rows(metrics))
    single = all(
        connection.execute(f"SELECT count(*) = count(DISTINCT id) FROM {side}").fetchall() == [(True,)] for side in "ab"
    )
    on = (
        "a.id = b.id"
        if single
        else f"a.id = b.id AND a.target IS NOT DISTINCT FROM b.target AND a.{OBJECT} IS NOT DISTINCT FROM b.{OBJECT}"
    )
    names = [*PLAIN[1:2], *PLAIN[3:], OBJECT, "file", "place", *metrics]
    both = ", ".join(f"{side}.{quoted(name)} AS {quoted(f'{number}_{name}')}" for name in names for side, number in (("a", "first"), ("b", "second")))  # fmt: skip
    table = connection.sql(
        f"SELECT a.id, a.label, {both} FROM a JOIN b ON {on} ORDER BY a.file, a.place, b.place"
    ).to_arrow_table()
    if not len(table):
        raise UsageError(f"{first.atlas.uri} and {second.atlas.uri} have no {'image' if single else 'explained class of an image'} in common: "
                         f"ids look like {_some(connection, 'a')} there and {_some(connection, 'b')} here; compare runs over the same data")  # fmt: skip
    left = [
        connection.execute(f"SELECT {side}.id FROM {side} ANTI JOIN {other} ON {on} ORDER BY 1").fetchall()
        for side, other in (("a", "b"), ("b", "a"))
    ]
    [(labels,)] = connection.execute(
        f"SELECT count(*) FROM a JOIN b ON {on} WHERE a.label IS DISTINCT FROM b.label"
    ).fetchall()
    return Pairs(
        (first, second), "id" if single else "id and target", table, tuple(metrics), (len(left[0]), len(left[1])),
        ([row[0] for row in left[0][:NAMED]], [row[0] for row in left[1][:NAMED]]),
        _notes(first, second, table, labels, single=single, by_name=matched is not None),
        matched[0] if matched else names_of[0],
    )  # fmt: skip


def match_classes(first: Sequence[str], second: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
    """The classes of both runs by name: all names, and for each class of the second run its place among them.

    Names are compared regardless of case and `_`. None where a side has no names or one twice, or where they share none: then classes
    can be matched by number only.
    """
    plain = [[" ".join(name.casefold().replace("_", " ").split()) for name in names] for names in (first, second)]
    if any(len(set(names)) < len(names) for names in plain) or not set(plain[0]) & set(plain[1]):
        return None
    union = [*first, *(name for name, form in zip(second, plain[1], strict=True) if form not in plain[0])]
    forms = [*plain[0], *(form for form in plain[1] if form not in plain[0])]
    places = {form: place for place, form in enumerate(forms)}
    return tuple(union), tuple(places[form] for form in plain[1])


def _renumbered(rows: pa.Table, places: Sequence[int]) -> pa.Table:
    """The rows with class indices of the second run as places in the common list; an index without a name becomes null."""
    lookup = pa.array(places, pa.int64())
    for name in ("target", "label", "prediction"):
        indices = rows[name].to_pylist()
        known = [index if index is not None and 0 <= index < len(places) else None for index in indices]
        column = lookup.take(pa.array(known, pa.int64())).cast(rows.schema.field(name).type)
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def _notes(first: Side, second: Side, table: pa.Table, labels: int, *, single: bool, by_name: bool) -> list[str]:
    notes = []
    if single:
        differ = sum(first_target != second_target for first_target, second_target in zip(table["first_target"].to_pylist(), table["second_target"].to_pylist(), strict=True)
                     if first_target is not None and second_target is not None)  # fmt: skip
        if differ:
            notes.append(f"{counted(differ, 'pair')} explain different classes (to be explained: {first.target} and {second.target}); their metrics are "
                         "compared all the same")  # fmt: skip
    if labels:
        notes.append(f"{counted(labels, 'pair')} have different labels in the two runs; the first run's are used")
    if first.atlas.class_names and second.atlas.class_names and first.atlas.class_names != second.atlas.class_names:
        notes.append(
            "the two runs have their classes in another order or not all the same ones; classes are compared by name"
            if by_name
            else "the two runs name their classes differently; classes are compared by number and shown with the first run's names"
        )
    sizes = [side.atlas.run["fingerprint"].get("preprocess") for side in (first, second)]
    if sizes[0] != sizes[1]:
        notes.append(
            "the two networks see the images differently (size, crop or padding), so maps are compared as they lie in each network's input"
        )
    return notes


def _some(connection: duckdb.DuckDBPyConnection, side: str) -> str:
    ids = connection.execute(f"SELECT id FROM {side} ORDER BY id LIMIT {NAMED}").fetchall()
    return ", ".join(shown(row[0]) for row in ids)


def fine(pairs: Pairs) -> pa.ChunkedArray:
    """`(pair,)` whether both rows are ok."""
    import pyarrow.compute as pc

    return pc.and_(pc.equal(pairs.table["first_status"], OK), pc.equal(pairs.table["second_status"], OK))  # pyright: ignore[reportAttributeAccessIssue]
