"""Components of logits that people called a shortcut, read back from the tables of `heatlas components`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError, UsageError
from ..storage.location import bytes_of, child, locate, names_in
from .class_tables import FOLDER, NAME, NAMES_KEY, ROWS

SHORTCUT = "shortcut"


@dataclass(frozen=True)
class NamedShortcut:
    """One component of a class's logit."""

    index: int
    """The class."""
    class_name: str
    number: int
    """Of the component."""
    name: str
    contributions: Mapping[str, float]
    """What it gives the logit, by id of the class's images."""


def named_shortcuts(out: str) -> tuple[list[NamedShortcut], list[str]]:
    """The components, and a line about names whose components are not in the tables.

    Args:
        out: Directory or URI of the store.

    Raises:
        UsageError: Where nobody called a component a shortcut.
        StorageError: If a table is damaged.
    """
    fs, path = locate(child(out, FOLDER))
    remedy = f"look at the galleries of `heatlas components {out}`, then name what does not belong to its class: --name CLASS:NUMBER:shortcut:NAME"
    names = names_in(fs, path)
    if NAME not in names or ROWS not in names:
        raise UsageError(f"{out} has no components; {remedy}")
    try:
        table = pq.read_table(pa.BufferReader(bytes_of(fs, f"{path}/{NAME}")))
        rows = pq.read_table(pa.BufferReader(bytes_of(fs, f"{path}/{ROWS}")), columns=["id", "class", "contributions"])
        records = [record for record in table.to_pylist() if record["kind"] == SHORTCUT]
        given = json.loads((table.schema.metadata or {}).get(NAMES_KEY, b"[]"))
        there = {(record["class_name"], record["name"]) for record in records}
        absent = sorted(
            {f"{name['name']} of {name['class_name']}" for name in given if name["kind"] == SHORTCUT}
            - {f"{name} of {label}" for label, name in there}
        )
        by_class: dict[int, dict[str, list[float]]] = {}
        for identity, index, contributions in zip(*rows.to_pydict().values(), strict=True):
            by_class.setdefault(index, {})[identity] = contributions
        shortcuts = [
            NamedShortcut(
                record["class"], record["class_name"], record["component"], record["name"],
                {identity: values[record["component"]] for identity, values in by_class[record["class"]].items()},
            )
            for record in records
        ]  # fmt: skip
    except (pa.ArrowException, OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise StorageError(
            f"cannot read the components in {out}/{FOLDER}: {error}; run heatlas components again"
        ) from error
    notes = [f"the shortcut {text} is not among the components of the last heatlas components, so it stays; run that again, without --class" for text in absent]  # fmt: skip
    if not shortcuts:
        raise UsageError(f"nobody called a component of {out} a shortcut; {'; '.join([*notes, remedy])}")
    return shortcuts, notes
