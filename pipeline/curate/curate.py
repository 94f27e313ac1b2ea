"""Write review queues: run recipes over a store and write their rows as Parquet, CSV or JSON lines."""

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

from ...engine.methods.protocol import METHODS
from ...engine.methods.registry import built_in
from ...errors import UsageError
from ..features.cue_table import cues_of, verdict, write_cues
from ..features.image_table import write_features
from ..storage.atomic_write import put, remove
from ..storage.location import child, locate
from ..store.reader import StoreReader, open_store
from ..text import counted
from .queue import LIMIT, Curation, run_recipes
from .recipe import Recipe, load_recipes

FOLDER = "curation"
CANNOT_TELL = "cannot tell by intervention without features (--probe); maps alone say:"
Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[str, ...] = get_args(Format)
_SHOWN = 3


@dataclass(frozen=True)
class WrittenQueues:
    """Queues and the files that hold them."""

    curation: Curation
    verdict: str | None
    """What was found about shortcuts by intervention, in words; None where nobody looked (`probe`)."""
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
    probs: str | None = None,
    probe: bool = False,
) -> WrittenQueues:
    """Run recipes over a store and write the queues.

    Args:
        out: The store.
        recipes: Packaged ones by name, own ones by path of a .sql file; None for all packaged ones.
        to: File for all queues together; None for `OUT/curation/RECIPE.parquet`, one for each recipe.
        limit: Most rows of each queue.
        params: `NAME=NUMBER` or `RECIPE.NAME=NUMBER`.
        probs: File with the user's own confidences, instead of the model's, to judge labels by.
        probe: Load the run's model first (which runs its code) and compute the features of its images into OUT/features.
        file_format: `parquet`, `csv` or `jsonl`; None for what the name `to` ends in, or Parquet.

    Raises:
        UsageError: For unknown recipes, parameters or formats, or if no recipe can run on this store.
        StorageError: If the store cannot be read or the queue cannot be written.
    """
    chosen = _format(to, file_format)
    atlas = open_store(out)
    refuse_display_maps(atlas)
    if to is not None:
        _refuse_inside(out, to)
    if probe:
        probe_store(atlas)
    curation = run_recipes(atlas, recipes, limit=limit, params=params, probs=probs)
    cues = cues_of(atlas)
    said = None if cues is None else verdict(cues, atlas.class_names)
    if to is not None:
        put(to, _WRITERS[chosen](curation.table()))
        return WrittenQueues(curation, said, dict.fromkeys(curation.queues, to))
    uris = {name: child(out, f"{FOLDER}/{name}.{chosen}") for name in curation.queues}
    for name, queue in curation.queues.items():
        put(uris[name], _WRITERS[chosen](queue))
    for name in curation.skipped:  # an earlier call's queue would pass for this one's
        remove(child(out, f"{FOLDER}/{name}.{chosen}"))
    return WrittenQueues(curation, said, uris)


def refuse_display_maps(atlas: StoreReader) -> None:
    """Refuse a run whose maps are made to be looked at.

    Raises:
        UsageError: Naming its method.
    """
    name = atlas.run["fingerprint"].get("method", "sise")
    if name in built_in() and METHODS[name].for_display:
        raise UsageError(
            f"the maps of {atlas.uri} are {name}'s, which hold more than the model's evidence and are made to be looked at; "
            "curate a run of another method"
        )


def probe_store(atlas: StoreReader) -> str:
    """Compute the features of a store's images with its run's model, look for cues, and write both beside it; returns their URI."""
    from ..features.compute import compute_features, load_stored_model  # here, because most queues need no torch
    from ..features.cues import CueSearch, find_cues

    model = load_stored_model(atlas)
    features = compute_features(model)
    uri = write_features(atlas.uri, features)
    by_id = {sample.id: sample for sample in model.samples}
    if model.confidence == "sigmoid":  # an image of several classes belongs to no one class alone
        write_cues(
            atlas.uri,
            CueSearch((), why_none="with sigmoid confidences an image belongs to no one class alone"),
            features.ids,
        )
        return uri
    search = find_cues(
        features.features, features.labels, features.predictions,
        lambda rows: model.images([by_id[features.ids[row]] for row in rows]), lambda images: model.confidences(images),
    )  # fmt: skip
    write_cues(atlas.uri, search, features.ids)
    return uri


def curation_text(written: WrittenQueues) -> str:
    """The queues as text: each recipe with the classes that it names most and its first rows."""
    lines: list[str] = []
    for name, queue in written.curation.queues.items():
        total = written.curation.found[name]
        if name == "shortcut":
            lines.append(f"shortcut: {written.verdict or CANNOT_TELL}")
        if note := written.curation.notes.get(name):
            lines.append(f"{name}: {note}")
        if wrong := _estimate(queue):
            lines.append(f"{name}: {wrong}")
        kept = f", the first {len(queue):,} written" if len(queue) < total else ""
        if (
            total or name != "shortcut" or not (written.verdict or "").startswith("cannot tell")
        ):  # 0 would be an all-clear
            lines.append(f"{name}: {counted(total, 'finding')}{kept}{_classes(queue)}")
        lines += [f"  {row['priority']:.2f}  {row['id']}: {row['reason']}" for row in queue.slice(0, _SHOWN).to_pylist()
                  if row["priority"] is not None]  # fmt: skip
    lines += [f"{name}: left out, it {why}" for name, why in written.curation.skipped.items()]
    places = list(dict.fromkeys(written.uris.values()))
    return "\n".join([*lines, "queue: " + ", ".join(places)])


def recipe_list() -> str:
    """The packaged recipes with their parameters."""
    lines = []
    for recipe in load_recipes():
        lines.append(f"{recipe.name}: {recipe.purpose}")
        if recipe.needs:
            lines.append(f"  needs {' and '.join(' or '.join(group) for group in recipe.needs)}")
        if recipe.uses:
            lines.append(f"  uses, where there: {', '.join(recipe.uses)}")
        lines += [
            f"  --param {recipe.name}.{name}={value:g}  {recipe.param_texts[name]}{range_text(recipe, name)}"
            for name, value in recipe.params.items()
        ]
    return "\n".join(lines)


def _estimate(queue: pa.Table) -> str | None:
    """How many labels are wrong, where a queue has an estimate."""
    if (
        "estimated_wrong" not in queue.column_names
        or not len(queue)
        or (number := queue["estimated_wrong"][0].as_py()) is None
    ):
        return None
    low, high = queue["wrong_from"][0].as_py(), queue["wrong_to"][0].as_py()
    return (
        f"about {counted(round(number), 'label')} may be wrong in all; from {low:,.0f} to {high:,.0f} agree with what was seen "
        "(mistakes that the model makes where it is surest count, too)"
    )


def _classes(queue: pa.Table) -> str:
    """The classes that a queue names most."""
    if "label" not in queue.column_names or not len(queue):
        return ""
    common = Counter(str(label) for label in queue["label"].to_pylist() if label is not None).most_common(_SHOWN)
    return f"; most in {', '.join(f'{name} ({count:,})' for name, count in common)}" if common else ""


def _format(to: str | None, asked: str | None) -> str:
    ending = to.rpartition(".")[2].lower() if to is not None and "." in to.rpartition("/")[2] else ""
    if asked is not None and asked not in FORMATS:
        raise UsageError(f"unknown format {asked!r}; choose {', '.join(FORMATS)}")
    if asked is None and to is not None and ending not in FORMATS:
        raise UsageError(f"cannot tell the format of {to!r}; let it end in .{', .'.join(FORMATS)}, or give --format")
    return asked or ending or "parquet"


def _refuse_inside(out: str, to: str) -> None:
    """Refuse to overwrite a part or another file of the run with a queue."""
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


def range_text(recipe: Recipe, param: str) -> str:
    """The range of a parameter as a sentence; empty where it has none."""
    if param not in recipe.param_ranges:
        return ""
    low, high = recipe.param_ranges[param]
    return f" In [{low:g}, {high:g}]."
