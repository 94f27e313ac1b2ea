"""How the data set that is there now differs from the one that a run was planned for, sample by sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import shortened
from ..shards import EXTRA
from ..storage.location import is_path
from ..text import counted

_LONGEST_VALUE = 100


@dataclass(frozen=True)
class ListingChanges:
    """By id."""

    new: pa.Table
    """Samples that the plan lacks, as listed now."""
    gone: tuple[str, ...]
    """Ids of the plan that are listed no more."""
    changed: tuple[tuple[str, str, object, object], ...]
    """Id, column, value in the plan and value now: the first difference of every sample that differs."""

    @property
    def any(self) -> bool:
        return bool(len(self.new) or self.gone or self.changed)


def listing_changes(planned: pa.Table, now: pa.Table) -> ListingChanges:
    """Compare two listings with labels resolved, whatever their order."""
    places = pc.index_in(now["id"], value_set=planned["id"].combine_chunks())  # pyright: ignore[reportAttributeAccessIssue]
    there = pc.is_valid(places)  # pyright: ignore[reportAttributeAccessIssue]
    known = set(now["id"].to_pylist())
    gone = tuple(identity for identity in planned["id"].to_pylist() if identity not in known)
    both = now.filter(there)
    before = planned.take(
        places.filter(there).combine_chunks() if isinstance(places, pa.ChunkedArray) else places.filter(there)
    )
    new = now.filter(pc.invert(there))  # pyright: ignore[reportAttributeAccessIssue]
    return ListingChanges(new, gone, tuple(_first_differences(before, both)))


def as_spelt(planned: pa.Table, now: pa.Table) -> pa.Table:
    """The listing of now with the plan's spelling of local places that are the same file: a link, or `..`, on one of the two ways."""
    places = pc.index_in(now["id"], value_set=planned["id"].combine_chunks())  # pyright: ignore[reportAttributeAccessIssue]
    theirs, ours = planned["uri"].take(places).to_pylist(), now["uri"].to_pylist()
    spelt = [
        first if first is not None and first != second and _one_file(first, second) else second
        for first, second in zip(theirs, ours, strict=True)
    ]
    return now.set_column(now.column_names.index("uri"), now.schema.field("uri"), pa.array(spelt, now["uri"].type))


def _one_file(first: str, second: str) -> bool:
    return is_path(first) and is_path(second) and os.path.realpath(first) == os.path.realpath(second)


def _first_differences(before: pa.Table, now: pa.Table) -> Iterator[tuple[str, str, object, object]]:
    names = list(dict.fromkeys((*before.column_names, *now.column_names)))
    differing = [name for name in names if not _same(before, now, name)]
    seen: set[str] = set()
    ids = now["id"].to_pylist()
    for name in differing:
        theirs, ours = (_values(table, name) for table in (before, now))
        for identity, first, second in zip(ids, theirs, ours, strict=True):
            if first != second and identity not in seen:
                seen.add(identity)
                yield identity, name, first, second


def _same(before: pa.Table, now: pa.Table, name: str) -> bool:
    if name not in before.column_names or name not in now.column_names:
        return False
    first, second = before[name], now[name]
    return first.type == second.type and first.equals(second)


def _values(table: pa.Table, name: str) -> list[object]:
    return table[name].to_pylist() if name in table.column_names else ["(no such column)"] * len(table)


def change_texts(changes: ListingChanges, *, append: bool) -> list[str]:
    """What refuses a listing, how many samples differ and an example of each kind; with `append` only samples that differ from the plan's."""
    texts = []
    if changes.changed:
        identity, column, first, second = changes.changed[0]
        texts.append(
            f"{counted(len(changes.changed), 'sample')} changed, such as {_cut(identity)!r}: "
            f"{column.removeprefix(EXTRA)} was {_cut(first)!r}, is {_cut(second)!r}"
        )
    if not append and len(changes.new):
        way = "" if changes.changed else " (--append explains new ones beside those of the run)"
        texts.append(f"{counted(len(changes.new), 'sample')} new, such as {_cut(changes.new['id'][0].as_py())!r}{way}")
    if not append and changes.gone:
        way = "" if changes.changed else " (--append keeps the rows of those that are gone)"
        texts.append(f"{counted(len(changes.gone), 'sample')} gone, such as {_cut(changes.gone[0])!r}{way}")
    return texts


def _cut(value: object) -> object:
    return shortened(value, _LONGEST_VALUE) if isinstance(value, str) else value
