"""`heatlas narrate`: sentences about rows and classes, checked, into `STORE/narration/`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import HeatlasError, UsageError
from ...statuses import OK
from ..pictures.show import draw
from ..pictures.stored_images import reader_of, stored_map, stored_preprocess
from ..report.rows import CHANCE, CONFIDENCE, ReportRows, RowKey, row_key
from ..report.scores import run_scores
from ..storage.atomic_write import put
from ..storage.location import child
from ..store.object_rows import OBJECT
from ..store.reader import StoreReader, open_store
from ..store.sql import literal
from .facts import Facts
from .facts_of_classes import class_summaries
from .facts_of_rows import ninths, row_facts
from .grounding import checkable_names, ungrounded_parts
from .labelled_parts import PartBoxes, part_shares, read_parts
from .templates import Language, load_language
from .vision_hook import FAILED, TEMPLATE, Hook, Narration, load_hook, narrate_by_hook, sha256_of

FOLDER = "narration"
WANTED = (
    "id",
    "uri",
    "label",
    "prediction",
    "target",
    CONFIDENCE,
    "status",
    "error",
    "label_confidence",
    "top_k",
    "ebpg",
    "border_share",
    "drop_pct",
    "outside_context",
    "layer_agreement",
    "context_class",
    "context_share",
    OBJECT,
    "box",
    "height",
    "width",
)
ROWS = pa.schema(
    [
        ("id", pa.string()), ("object_id", pa.string()), ("target", pa.int32()), ("method", pa.string()), ("language", pa.string()), ("text", pa.string()),
        ("narration_status", pa.string()), ("ungrounded", pa.list_(pa.string())), ("prompt", pa.string()), ("prompt_sha256", pa.string()),
        ("answer", pa.string()), ("answer_sha256", pa.string()),
    ]
)  # fmt: skip
CLASSES = pa.schema(
    [
        ("class", pa.int32()),
        ("name", pa.string()),
        ("method", pa.string()),
        ("language", pa.string()),
        ("text", pa.string()),
    ]
)


@dataclass(frozen=True)
class NarratedStore:
    """What was written."""

    rows: pa.Table
    """As `STORE/narration/rows.parquet` has them."""
    classes: pa.Table
    uri: str
    unknown_parts: int = 0
    """Images whose parts are labelled, but that are not in the store."""

    def failure(self) -> str | None:
        """How the hook failed at the first row at which it did; None where it never did."""
        failed = (
            row
            for row in self.rows.select(["id", "narration_status", "ungrounded"]).to_pylist()
            if row["narration_status"] == FAILED
        )
        first = next(failed, None)
        return None if first is None else f"the hook failed, such as at {first['id']}: {first['ungrounded'][0]}"

    def statuses(self) -> dict[str, int]:
        """Rows by `narration_status`."""
        values = self.rows["narration_status"].value_counts().to_pylist()
        return {entry["values"]: entry["counts"] for entry in values}


def narrate_store(
    out: str | os.PathLike[str] | StoreReader,
    *,
    language: str = "en",
    ids: Sequence[str] | None = None,
    limit: int | None = None,
    method: str | None = None,
    vlm: str | Hook | None = None,
    parts: str | os.PathLike[str] | PartBoxes | None = None,
    trust_code: bool = False,
) -> NarratedStore:
    """Write a text about every row and every class of a store.

    Args:
        out: Directory or URI of a run's store, or the store opened.
        language: One that comes with heatlas (`en`, `de`), or a `.toml` file.
        ids: Only rows of these images.
        limit: At most so many rows, an even sample by a digest of the id; None for all.
        method: Whose rows, where the store has several; None for the method with the most.
        vlm: Writes the texts of rows instead: `package.module:callable`, or the callable. None: templates alone.
        parts: Labelled parts of the images: a JSON file, or what is in it, see `labelled_parts.read_parts`.
        trust_code: Whether a source written in Python, which the store names, may be run, for the pictures that `vlm` is shown.

    Raises:
        UsageError: For an unknown language or id, a limit below 1, a hook that cannot be called, labelled parts of none of the store's images, or a
            language file without a sentence for a row or class.
        StorageError: If the store cannot be read or the texts cannot be written.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1 row, got {limit}; leave it out for all")
    words = load_language(language)
    hook = load_hook(vlm) if isinstance(vlm, str) else vlm
    labelled = read_parts(os.fspath(parts)) if isinstance(parts, str | os.PathLike) else parts or {}
    atlas = out if isinstance(out, StoreReader) else open_store(out)
    rows = ReportRows.of(atlas, method)
    try:
        chosen = _chosen_ids(rows, ids, limit)
        unknown = _unknown_parts(rows, labelled)
        named = checkable_names(atlas.class_names, words)
        narrator = _Narrator(atlas, rows, words, hook, labelled, trust_code)
        records = [record for table in _tables(atlas, rows.method, chosen) for record in narrator.records(table)]
        classes = [
            {"class": summary.index, "name": summary.name, "method": rows.method, "language": words.name,
             "text": checked(words.class_text(facts), facts, named, words)}
            for summary, facts in class_summaries(rows)
        ]  # fmt: skip
    finally:
        rows.connection.close()
    written = NarratedStore(
        pa.Table.from_pylist(records, ROWS), pa.Table.from_pylist(classes, CLASSES), child(atlas.uri, FOLDER), unknown
    )
    for name, table in (("rows", written.rows), ("classes", written.classes)):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        put(child(written.uri, f"{name}.parquet"), buffer.getvalue())
    return written


def checked(text: str, facts: Facts, class_names: Sequence[str], language: Language) -> str:
    """The text of a template; it must be grounded like any other.

    Raises:
        UsageError: If no sentence of the language file fits, or one says a number or class that is none of the facts.
    """
    if not text.strip():
        holding = ", ".join(sorted(facts.conditions)) or "nothing else is known"
        raise UsageError(
            f"--language {language.name} has no sentence for a row or class of which this holds: {holding}; add one whose conditions it meets"
        )
    if wrong := ungrounded_parts(text, facts, class_names, language):
        raise UsageError(
            f"--language {language.name}: the text {text!r} says {wrong[0]!r}, which is no fact of its row; use a placeholder for it"
        )
    return text


class _Narrator:
    """Writes the texts of rows."""

    def __init__(
        self,
        atlas: StoreReader,
        rows: ReportRows,
        language: Language,
        hook: Hook | None,
        parts: PartBoxes,
        trust_code: bool,
    ):
        self._atlas, self._rows, self._language, self._hook, self._parts = atlas, rows, language, hook, parts
        self._names = (*atlas.class_names, *dict.fromkeys(name for own in parts.values() for name in own))
        self._checkable = checkable_names(self._names, language)
        self._chance = run_scores(rows, resamples=1).get("ebpg", {}).get("random")
        self._shape = atlas.metadata.get("map")
        self._are_exclusive = atlas.run.get("fingerprint", {}).get("score", "softmax") == "softmax"
        self._picture_of = _pictures(atlas, trust_code) if hook else None

    def records(self, table: pa.Table) -> Iterator[dict[str, Any]]:
        maps, chances = self._maps(table), self._chances(table["id"].to_pylist())
        grids = dict(zip(maps, ninths(np.stack(list(maps.values()))), strict=True)) if maps else {}
        plain = [name for name in table.column_names if name != "map"]
        for place, row in enumerate(table.select(plain).to_pylist()):
            chance = chances.get(row_key(row))
            facts = row_facts(
                row, grids.get(place), self._atlas.class_names, self._chance if chance is None else chance,
                are_exclusive=self._are_exclusive,
                parts=part_shares(maps[place], own) if place in maps and (own := self._parts.get(row["id"])) else None,
            )  # fmt: skip
            narration = self._narration(row, table, place, facts)
            yield {
                "id": row["id"], "object_id": row.get(OBJECT), "target": row["target"], "method": self._rows.method, "language": self._language.name, "text": narration.text,
                "narration_status": narration.status, "ungrounded": list(narration.wrong), "prompt": narration.prompt,
                "prompt_sha256": sha256_of(narration.prompt), "answer": narration.answer, "answer_sha256": sha256_of(narration.answer),
            }  # fmt: skip

    def _narration(self, row: Mapping[str, Any], table: pa.Table, place: int, facts: Facts) -> Narration:
        text = checked(self._language.row_text(facts), facts, self._checkable, self._language)
        if self._hook is None or self._picture_of is None or row["status"] != OK:
            return Narration(text, TEMPLATE)
        map_ = stored_map(table["map"][place].as_py(), self._shape or {}) if "map" in table.column_names else None
        return narrate_by_hook(self._hook, facts, text, self._picture_of(row, map_), self._names, self._language)

    def _chances(self, ids: list[str]) -> dict[RowKey, float | None]:
        """What a random map has on the object, by row, as the report takes it."""
        query = f"SELECT id, target, {OBJECT}, {CHANCE} AS chance FROM rows WHERE id IN (SELECT unnest(?))"
        return {row_key(row): row["chance"] for row in self._rows.ask(query, [ids])}

    def _maps(self, table: pa.Table) -> dict[int, np.ndarray]:
        """By row, its map `(height, width)`, float32."""
        if self._shape is None or "map" not in table.column_names:
            return {}
        present = np.flatnonzero(table["map"].is_valid().to_numpy())
        if not len(present):
            return {}
        size = self._shape["height"] * self._shape["width"]
        flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["map"].drop_null().chunks]
        maps = (
            np.concatenate(flat).reshape(-1, self._shape["height"], self._shape["width"])
            if size
            else np.empty((0, 1, 1))
        )
        return dict(zip(present.tolist(), maps.astype(np.float32), strict=True))


def _chosen_ids(rows: ReportRows, ids: Sequence[str] | None, limit: int | None) -> list[str] | None:
    """None for all.

    Raises:
        UsageError: For ids that the store does not have.
    """
    if ids is not None:
        wanted = list(dict.fromkeys(ids))
        known = _known_ids(rows, wanted)
        if missing := [identity for identity in wanted if identity not in known]:
            raise UsageError(f"{len(missing)} of the ids are not in {rows.atlas.uri}, such as {missing[0]!r}")
        return wanted[:limit]
    if limit is None:
        return None
    return [row["id"] for row in rows.ask("SELECT id FROM rows WHERE main ORDER BY draw, id LIMIT ?", [limit])]


def _known_ids(rows: ReportRows, ids: Sequence[str]) -> set[str]:
    return {row["id"] for row in rows.ask("SELECT DISTINCT id FROM rows WHERE id IN (SELECT unnest(?))", [list(ids)])}


def _unknown_parts(rows: ReportRows, parts: PartBoxes) -> int:
    """How many of the images with labelled parts the store does not have.

    Raises:
        UsageError: If it has none of them.
    """
    known = _known_ids(rows, list(parts))
    if parts and not known:
        [example] = rows.ask("SELECT id FROM rows ORDER BY id LIMIT 1") or [{"id": "none"}]
        raise UsageError(
            f"none of the {len(parts)} images in --parts is in {rows.atlas.uri}, such as {next(iter(parts))!r}; name images by their id, such as "
            f"{example['id']!r}"
        )
    return len(parts) - len(known)


def _tables(atlas: StoreReader, method: str, ids: list[str] | None) -> Iterator[pa.Table]:
    names = [name for name in (*WANTED, "map") if name in atlas.schema.names]
    yield from atlas.batches(names, f"method = {literal(method)}", ids)


def _pictures(atlas: StoreReader, trust_code: bool) -> Any:
    """Draws the image beside its map as PNG; None for a row whose image cannot be read."""
    try:
        preprocess = stored_preprocess(atlas.run)
        reader = reader_of(atlas.run, trust_code=trust_code)
    except (KeyError, TypeError, HeatlasError):
        return lambda row, map_: None

    def picture(row: Mapping[str, Any], map_: np.ndarray | None) -> bytes | None:
        try:
            return draw({**row, "map": map_}, preprocess, reader)
        except HeatlasError:
            return None

    return picture
