"""Make suggestions from a store's review queues, maps and ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from ...errors import DataError, SampleError, UsageError
from ...workers.images.decode import prepare
from ...workers.images.geometry import Geometry
from ...workers.samples import Sample
from ..curate.queue import run_recipes
from ..decisions.rle import encode_mask
from ..export.whole_image import geometry_of
from ..pictures.stored_images import reader_of, stored_map, stored_preprocess
from ..run_samples import chosen_samples
from ..settings.load import load_settings
from ..store.object_rows import one_object
from ..store.sql import literal, quoted
from ..stored_settings import settings_of_run
from ..text import class_name
from .suggestion import KINDS, Suggestion, suggestion_id

if TYPE_CHECKING:
    from ..store.reader import StoreReader

STRONG = 0.5
"""Share of its largest value from which on a map's pixel belongs to a suggested mask."""
SURE = 0.8
"""Least confidence of a prediction whose object may be missing from the annotations."""
LIMIT = 200
"""Suggestions of each kind."""
QUEUES = {"shortcut": "shortcut", "label": "label_suspicion"}
WANTED = ("id", "uri", "label", "prediction", "target", "confidence", "status", "height", "width")


def make_suggestions(
    atlas: StoreReader, kinds: Sequence[str] = tuple(KINDS), *, limit: int = LIMIT
) -> tuple[list[Suggestion], dict[str, str]]:
    """Suggestions of each kind, the most urgent first.

    `shortcut`: rows of the queue, with the strong part of their map outside the ground truth. `missing`: sure predictions for images without
    ground truth in a run that has some, with the strong part of their map. `label`: rows of the queue, with the class proposed instead.

    Returns:
        Suggestions, and why a kind could not be made.

    Raises:
        UsageError: For an unknown kind or a limit below 1, or if nothing can be suggested.
        StorageError: If the store cannot be read.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"unknown kind of suggestion {unknown[0]!r}; choose {', '.join(KINDS)}")
    if limit < 1:
        raise UsageError(f"limit must be at least 1, got {limit}")
    suggestions: list[Suggestion] = []
    skipped: dict[str, str] = {}
    samples: Mapping[str, Sample] = _samples(atlas) if set(kinds) & {"shortcut", "missing"} else {}
    for kind in kinds:
        if kind == "missing":
            candidates, why = _missing(atlas, limit)
        else:
            candidates, why = _queued(atlas, QUEUES[kind], limit)
        made = [it for row in candidates if (it := _suggestion(atlas, kind, row, samples)) is not None]
        if not made:
            skipped[kind] = why or "nothing is suspected"
        suggestions += made
    if not suggestions:
        raise UsageError(
            f"nothing to suggest for {atlas.uri}: " + "; ".join(f"{kind}: {why}" for kind, why in skipped.items())
        )
    return suggestions, skipped


def mask_on_image(
    mask: Bool[np.ndarray, "height width"], geometry: Geometry
) -> Bool[np.ndarray, "source_height source_width"]:
    """A mask of the network's input in pixels of the upright image: each takes the value where its centre went; what was cut off is False."""
    places = []
    for axis, offset in ((0, geometry.top), (1, geometry.left)):
        source, resized, size = geometry.source[axis], geometry.resized[axis], geometry.size[axis]
        at = np.floor((np.arange(source) + 0.5) * resized / source - offset).astype(np.int64)
        places.append((at.clip(0, size - 1), (at >= 0) & (at < size)))
    (rows, rows_inside), (columns, columns_inside) = places
    return mask[np.ix_(rows, columns)] & rows_inside[:, None] & columns_inside[None, :]


def strong_part(
    map_: Float[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"] | None
) -> Bool[np.ndarray, "height width"]:
    """Pixels from `STRONG` of the map's maximum outside of the truth on; all False for a map of zeros."""
    outside = map_ if truth is None else np.where(truth, 0, map_)
    top = float(outside.max(initial=0))
    return np.asarray((outside >= STRONG * top) & (outside > 0))


def _queued(atlas: StoreReader, recipe: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    try:
        queue = run_recipes(atlas, [recipe], limit=limit).queues[recipe].to_pylist()
    except UsageError as error:  # the recipe cannot run here
        return [], str(error).replace("\n", " ")
    return _with_rows(atlas, queue), None


def _missing(atlas: StoreReader, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    if "ebpg" not in atlas.schema.names or not atlas.count("ebpg IS NOT NULL"):
        return [], "the run measured no ebpg, so what is marked is not known"
    where = f"status = 'ok' AND target = prediction AND ebpg IS NULL AND confidence >= {SURE} AND {one_object(atlas.schema)}"
    rows = atlas.table(["id", "target", "confidence"], where).to_pylist()
    rows.sort(key=lambda row: (-row["confidence"], row["id"]))
    queue = [
        {"id": row["id"], "target": row["target"], "priority": row["confidence"],
         "reason": f"Nothing is marked here. The model sees {class_name(atlas.class_names, row['target'])} with confidence {row['confidence']:.2f}."}
        for row in rows[:limit]
    ]  # fmt: skip
    return _with_rows(atlas, queue), None


def _with_rows(atlas: StoreReader, queue: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The queue's rows with their map and size, in the queue's order."""
    map_column = next((name for name in ("map_png", "map") if name in atlas.schema.names), None)
    ids = sorted({str(row["id"]) for row in queue})
    columns = [*WANTED, *([map_column] if map_column else [])]
    listed = ", ".join(map(literal, ids)) or "NULL"
    rows = atlas.query_table(
        f"SELECT {', '.join(map(quoted, columns))} FROM atlas WHERE id IN ({listed}) AND {one_object(atlas.schema)}"
    ).to_pylist()
    shape = atlas.metadata.get("map", {})
    by_key: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        row["map"] = stored_map(row.pop(map_column), shape) if map_column else None
        by_key.setdefault((row["id"], row["target"]), row)
    return [{**by_key[key], **row} for row in queue if (key := (row["id"], row["target"])) in by_key]


def _samples(atlas: StoreReader) -> dict[str, Sample]:
    """The run's samples with their ground truth; empty where the data set is gone."""
    try:
        settings = load_settings({**settings_of_run(atlas.run), "out": atlas.uri})
        listing = chosen_samples(settings, atlas.run["fingerprint"].get("data_root")).listing
    except (DataError, UsageError):
        return {}
    rows = listing.select(["id", "uri", "boxes", "mask_uri"]).to_pylist()
    boxes = {row["id"]: tuple(tuple(box) for box in row["boxes"] or ()) for row in rows}
    return {row["id"]: Sample(row["id"], row["uri"], None, boxes[row["id"]], row["mask_uri"]) for row in rows}


def _suggestion(
    atlas: StoreReader, kind: str, row: Mapping[str, Any], samples: Mapping[str, Sample]
) -> Suggestion | None:
    if not row["height"] or not row["width"]:
        return None
    names = atlas.class_names
    stored = row["label"]
    label = stored if isinstance(stored, str) else None if stored is None else class_name(names, stored)
    common: dict[str, Any] = {
        "id": row["id"], "uri": row["uri"], "kind": kind, "height": row["height"], "width": row["width"], "target": row["target"],
        "priority": float(row["priority"] or 0), "reason": row["reason"], "label": label,
    }  # fmt: skip
    if kind == "label":
        suggested = str(row["suggested"])
        identity = suggestion_id(row["id"], row["target"], kind, suggested.encode())
        return None if suggested == label else Suggestion(identity, suggested=suggested, **common)
    geometry = geometry_of(row, stored_preprocess(atlas.run))
    if row["map"] is None or geometry is None:
        return None
    truth = _truth(atlas, samples[row["id"]], row["map"].shape) if kind == "shortcut" and row["id"] in samples else None
    mask = mask_on_image(_at_size(strong_part(row["map"], truth), geometry.size), geometry)
    if not mask.any():
        return None
    evidence = np.ascontiguousarray(row["map"], np.float32).tobytes()
    return Suggestion(suggestion_id(row["id"], row["target"], kind, evidence), mask=encode_mask(mask), **common)


def _truth(atlas: StoreReader, sample: Sample, shape: tuple[int, ...]) -> np.ndarray | None:
    """What is marked, at the size of the map."""
    if sample.mask_uri is None and not sample.boxes:
        return None
    try:
        prepared = prepare(sample, reader_of(atlas.run), stored_preprocess(atlas.run))
    except SampleError:
        return None
    return None if prepared.truth is None else _at_size(prepared.truth.numpy(), shape)


def _at_size(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A mask at another size: each pixel takes the value under its centre."""
    rows, columns = (np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
                     for new, old in zip(size, mask.shape, strict=True))  # fmt: skip
    return mask[np.ix_(rows, columns)]
