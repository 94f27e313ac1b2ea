"""`heatlas curate`: run recipes and write the queues where people look for them."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from ...errors import UsageError
from ..storage.atomic_write import put, remove
from ..storage.location import child, locate, names_in
from ..store.reader import open_store
from ..text import counted
from .queue import LIMIT, Curation, run_recipes
from .recipe import load_recipes

FOLDER = "curation"
Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[str, ...] = get_args(Format)
_SHOWN = 3


@dataclass(frozen=True)
class WrittenQueues:
    """What was found and where it is."""

    curation: Curation
    uris: Mapping[str, str]
    """The file of each recipe; one for all with `to`."""


def curate_store(
    out: str,
    *,
    recipes: Sequence[str] | None = None,
    to: str | None = None,
    limit: int = LIMIT,
    params: Sequence[str] = (),
    file_format: Format | None = None,
) -> WrittenQueues:
    """Find what is to be looked at in a store and write it down.

    Args:
        out: The store.
        recipes: Packaged ones by name, own ones by path of a .sql file; None for all packaged ones.
        to: File for all queues together; None for `OUT/curation/RECIPE.parquet`, one for each recipe.
        limit: Most rows of each queue.
        params: `NAME=NUMBER` or `RECIPE.NAME=NUMBER`.
        file_format: `parquet`, `csv` or `jsonl`; None for what the name `to` ends in, or Parquet.

    Raises:
        UsageError: For unknown recipes, parameters or formats, or if no recipe can run on this store.
        StorageError: If the store cannot be read or the queue cannot be written.
    """
    chosen = _format(to, file_format)
    atlas = open_store(out)
    if to is not None:
        _refuse_inside(out, to)
    found = run_recipes(atlas, recipes, limit=limit, params=params)
    if to is not None:
        put(to, _WRITERS[chosen](found.table()))
        return WrittenQueues(found, dict.fromkeys(found.queues, to))
    uris = {name: child(out, f"{FOLDER}/{name}.{chosen}") for name in found.queues}
    for name, queue in found.queues.items():
        put(uris[name], _WRITERS[chosen](queue))
    for name in found.skipped:  # what an earlier call found is no longer true of what was asked now
        remove(child(out, f"{FOLDER}/{name}.{chosen}"))
    return WrittenQueues(found, uris)


def stored_queues(out: str) -> dict[str, pa.Table]:
    """The queues that `heatlas curate OUT` wrote into the store, by recipe; empty if it was not run.

    Raises:
        StorageError: If one cannot be read.
    """
    place = child(out, FOLDER)
    fs, path = locate(place)
    names = [name for name in names_in(fs, path) if name.endswith(".parquet") and not name.startswith(".")]
    found = {}
    for name in names:
        with fs.open(f"{path}/{name}", "rb") as file:
            found[name.removesuffix(".parquet")] = pq.read_table(pa.PythonFile(file))
    return found


def curation_text(written: WrittenQueues) -> str:
    """What was found, for people: each recipe with the classes that it names most and its first findings."""
    lines: list[str] = []
    for name, queue in written.curation.queues.items():
        total = written.curation.found[name]
        kept = f", the first {len(queue):,} written" if len(queue) < total else ""
        lines.append(f"{name}: {counted(total, 'finding')}{kept}{_classes(queue)}")
        lines += [f"  {row['priority']:.2f}  {row['id']}: {row['reason']}" for row in queue.slice(0, _SHOWN).to_pylist()
                  if row["priority"] is not None]  # fmt: skip
    lines += [f"{name}: left out, it {why}" for name, why in written.curation.skipped.items()]
    places = list(dict.fromkeys(written.uris.values()))
    return "\n".join([*lines, "queue: " + ", ".join(places)])


def recipe_list() -> str:
    """The packaged recipes with their parameters."""
    lines = []
    for one in load_recipes():
        lines.append(f"{one.name}: {one.purpose}")
        if one.needs:
            lines.append(f"  needs {' and '.join(' or '.join(group) for group in one.needs)}")
        if one.uses:
            lines.append(f"  uses, where there: {', '.join(one.uses)}")
        lines += [
            f"  --param {one.name}.{name}={value:g}  {one.param_texts[name]}" for name, value in one.params.items()
        ]
    return "\n".join(lines)


def _classes(queue: pa.Table) -> str:
    """The classes of the first rows of a queue."""
    if "label" not in queue.column_names or not len(queue):
        return ""
    common = Counter(str(one) for one in queue["label"].to_pylist() if one is not None).most_common(_SHOWN)
    return f"; most in {', '.join(f'{name} ({count:,})' for name, count in common)}" if common else ""


def _format(to: str | None, asked: str | None) -> str:
    ending = to.rpartition(".")[2].lower() if to is not None and "." in to.rpartition("/")[2] else ""
    if asked is not None and asked not in FORMATS:
        raise UsageError(f"unknown format {asked!r}; choose {', '.join(FORMATS)}")
    if asked is None and to is not None and ending not in FORMATS:
        raise UsageError(f"cannot tell the format of {to!r}; let it end in .{', .'.join(FORMATS)}, or give --format")
    return asked or ending or "parquet"


def _refuse_inside(out: str, to: str) -> None:
    """A queue must not take the place of a part or of anything else that makes the run."""
    (fs, run), (to_fs, path) = locate(out), locate(to)
    inside = path.startswith(run.rstrip("/") + "/")
    below = path.removeprefix(run.rstrip("/") + "/")
    if fs.to_dict() == to_fs.to_dict() and inside and not below.startswith(f"{FOLDER}/"):
        raise UsageError(
            f"--out {to} lies in the store {out}; leave it out to write {child(out, FOLDER)}, or choose another place"
        )


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _csv(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pc.write_csv(table, buffer)
    return buffer.getvalue()


def _jsonl(table: pa.Table) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in table.to_pylist()).encode()


_WRITERS: dict[str, Callable[[pa.Table], Any]] = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}
