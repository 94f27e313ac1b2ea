"""`heatlas spread`: a few decisions become a probability for every image of a class, and a mask for every image that carries the mark."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

from ...errors import UsageError
from ..annotate.suggest import mask_on_image
from ..decisions.current import cancelled_ids
from ..decisions.decision import UNDO, Decision
from ..decisions.decision_log import append_decisions, read_decisions
from ..decisions.rle import encode_mask
from ..decisions.upright_masks import image_sizes
from ..features.compute import load_stored_model
from ..intervene.groups_of_rows import ExplainedRow, chosen_method, explained_rows
from ..intervene.intervene import class_index
from ..storage.atomic_write import put
from ..storage.location import child
from ..store.added_values import Key, write_values
from ..store.reader import StoreReader, open_store
from ..terminal_log import say
from ..text import class_name, counted
from .class_spread import ClassSpread, fits_elsewhere, spread_class
from .decided_rows import SPREAD, decided_classes, people_decided
from .image_features import BlockFeatureReader
from .label_spread import NEIGHBOURS

FOLDER, NAME = "spread", "rows.parquet"
WHO = "heatlas spread"
METADATA_KEY = b"heatlas_spread"
COLUMN_FACTS: dict[str, dict[str, Any]] = {
    "shortcut_probability": {
        "definition": "shortcut_probability/1", "formula": "probability that the image carries the mark that people called a shortcut of its predicted class",
        "unit": "probability", "range": [0.0, 1.0], "better": None, "baseline": None, "source": "heatlas spread",
    }
}  # fmt: skip
SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("target", pa.int32()), ("method", pa.string()), ("shortcut_probability", pa.float64()), ("decided", pa.string()),
        ("propagated_from", pa.string()), ("mask_share", pa.float64()), ("mask_by", pa.string()),
    ]
)  # fmt: skip
"""`decided`: `shortcut` or `core` where a person decided; `propagated_from`: the decided image that this one resembles most; `mask_share`: share of the
network's input that its mask covers; `mask_by`: `person`, `painted` (a painted region, found again) or `direction`."""


@dataclass(frozen=True)
class SpreadDecisions:
    """What spread, and where it was written."""

    rows: pa.Table
    """As `STORE/spread/rows.parquet` has them."""
    texts: tuple[str, ...]
    """One sentence per class."""
    uri: str
    decisions: int
    """Decisions with source `spread` that hold now."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why a class was not judged, by its name."""

    def text(self) -> str:
        lines = [*self.texts, *(f"{name}: not spread, {why}" for name, why in self.skipped.items())]
        return "\n".join(
            [
                *lines,
                f"spread: {self.uri}; column shortcut_probability, {counted(self.decisions, 'decision')} with source spread",
            ]
        )


def spread_decisions(
    out: str | os.PathLike[str] | StoreReader,
    *,
    classes: Sequence[str] | None = None,
    method: str | None = None,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> SpreadDecisions:
    """Spread what people decided about some images to all images of the same predicted class.

    `shortcut` decisions are examples of the mark, `core` and `ok` ones of images without. What an earlier call spread is taken back; what people
    decided is never changed. Loads the run's model, which runs its code.

    Args:
        out: Directory or URI of a run's store, or the store opened.
        classes: Names of classes; None for all with a shortcut decision.
        method: Whose maps weigh the features; None for the method with the most rows.
        neighbours: Of the k-nearest-neighbour graph, at least 1.
        seed: Of folds and samples.

    Raises:
        UsageError: If nobody decided on a shortcut, no class has enough decisions, or a mask has another size than its image.
        RunMismatchError: If the model has other weights now.
        StorageError: If the store cannot be read or written.
    """
    if neighbours < 1:
        raise UsageError(f"neighbours must be at least 1, got {neighbours}; leave it out for {NEIGHBOURS}")
    if seed < 0:
        raise UsageError(f"seed must be at least 0, got {seed}")
    atlas = out if isinstance(out, StoreReader) else open_store(out)
    name, log = chosen_method(atlas, method), read_decisions(atlas.uri)
    rows = explained_rows(atlas, name)
    wanted = None if classes is None else [class_index(atlas, text) for text in classes]
    groups = [group for group in decided_classes(rows, people_decided(log)) if wanted is None or group.target in wanted]
    if not groups:
        raise UsageError(f"nobody decided `shortcut` about an image that {atlas.uri} explains{'' if wanted is None else ' in these classes'}; "
                         f"look at the suspicious ones with `heatlas view {atlas.uri}`, or `heatlas decide --id ID --kind shortcut`")  # fmt: skip
    skipped = {class_name(atlas.class_names, group.target): group.lacks for group in groups if group.lacks}
    if len(skipped) == len(groups):
        raise UsageError("too few decisions: " + "; ".join(f"{label}: {why}" for label, why in skipped.items()))
    reader = BlockFeatureReader.of(load_stored_model(atlas), atlas, name)
    results: list[ClassSpread] = []
    for group in groups:
        if group.lacks is None:
            result = spread_class(reader, group, neighbours=neighbours, seed=seed)
            if result is None:
                skipped[class_name(atlas.class_names, group.target)] = "too few of the decided images can be read"
            else:
                results.append(result)
    return _written(
        atlas, reader, name, rows, results, log, skipped, {"neighbours": neighbours, "seed": seed, "method": name}
    )


def _written(
    atlas: StoreReader,
    reader: BlockFeatureReader,
    method: str,
    rows: Sequence[ExplainedRow],
    results: Sequence[ClassSpread],
    log: Sequence[Decision],
    skipped: Mapping[str, str],
    facts: Mapping[str, Any],
) -> SpreadDecisions:
    records: dict[tuple[str, int], dict[str, Any]] = {}
    for result in results:
        own = {row.id for row in result.decided.rows}
        others = [row for row in rows if row.target == row.prediction and row.id not in own]
        for record in [*_records(result, method), *_elsewhere(reader, result, others, method)]:
            key = record["id"], record["target"]
            if key not in records or records[key]["shortcut_probability"] < record["shortcut_probability"]:
                records[key] = record
    values: dict[Key, dict[str, float | None]] = {
        (row["id"], None, row["target"], method): {"shortcut_probability": row["shortcut_probability"]}
        for row in records.values()
    }
    write_values(atlas, values, COLUMN_FACTS, facts)
    decisions = _decisions(atlas, reader, results, log)
    append_decisions(atlas.uri, decisions)
    texts = tuple(_sentence(result, atlas.class_names) for result in results)
    for text in texts:
        say(text)
    listed = [records[key] for key in sorted(records)]
    table = pa.Table.from_pylist(
        listed, schema=SCHEMA.with_metadata({METADATA_KEY: json.dumps({**facts, "texts": texts}).encode()})
    )
    buffer, uri = io.BytesIO(), child(atlas.uri, f"{FOLDER}/{NAME}")
    pq.write_table(table, buffer, compression="zstd")
    put(uri, buffer.getvalue())
    return SpreadDecisions(table, texts, uri, sum(decision.kind != UNDO for decision in decisions), dict(skipped))


def _elsewhere(
    reader: BlockFeatureReader, result: ClassSpread, rows: Sequence[ExplainedRow], method: str
) -> list[dict[str, Any]]:
    """Other classes' images: how well the painted mark fits, by what that is worth among the decided images; nothing where nobody painted."""
    if result.how != "painted" or result.detector is None or not rows:
        return []
    decided = [result.decided.rows[number] for number in result.read if result.decided.labels[number] >= 0]
    labels = {row.id: result.decided.labels[number] for number, row in enumerate(result.decided.rows)}
    fits = fits_elsewhere(reader, result.detector, [*decided, *rows])
    known = [row.id for row in decided if row.id in fits]
    values, truth = (
        np.array([[fits[identity]] for identity in known]),
        np.array([labels[identity] for identity in known]),
    )
    scale = max(float(values.std()), 1e-6)
    model = LogisticRegression().fit(values / scale, truth)
    asked = [row for row in rows if row.id in fits]
    if not asked:
        return []
    chances = model.predict_proba(np.array([[fits[row.id]] for row in asked]) / scale)[:, 1]
    return [
        {"id": row.id, "target": row.target, "method": method, "shortcut_probability": float(chance)}
        for row, chance in zip(asked, chances, strict=True)
    ]


def _records(result: ClassSpread, method: str) -> list[dict[str, Any]]:
    decided, records = result.decided, []
    for number, chance, nearest in zip(result.read, result.probability, result.nearest, strict=True):
        row, label, region = decided.rows[number], decided.labels[number], result.regions.get(int(number))
        by = None if region is None else "person" if int(number) in decided.painted else result.how
        records.append({
            "id": row.id, "target": row.target, "method": method, "shortcut_probability": float(chance), "decided": {1: "shortcut", 0: "core"}.get(int(label)),
            "propagated_from": decided.rows[nearest].id, "mask_share": None if region is None else float(region.mean()), "mask_by": by,
        })  # fmt: skip
    return records


def _decisions(
    atlas: StoreReader, reader: BlockFeatureReader, results: Sequence[ClassSpread], log: Sequence[Decision]
) -> list[Decision]:
    """Earlier spread decisions taken back, and the new ones; a person's shortcut without a mask is answered by the same with one."""
    cancelled = cancelled_ids(log)
    undone = [Decision(old.id, UNDO, who=WHO, source=SPREAD, supersedes=old.decision_id, object_id=old.object_id)
              for old in log if old.source == SPREAD and old.kind != UNDO and old.decision_id not in cancelled]  # fmt: skip
    people, sizes = people_decided(log), image_sizes(atlas)
    new = []
    for result in results:
        count = int((result.decided.labels >= 0).sum())
        for number, chance in zip(result.read, result.probability, strict=True):
            row, region = result.decided.rows[number], result.regions.get(int(number))
            own = people.get(row.id, {}).get("shortcut")
            if chance <= 0.5 or int(number) in result.decided.painted or (own is not None and region is None):
                continue
            mask = None
            if region is not None and row.id in sizes:
                whole = mask_on_image(region, reader.model.preprocess.geometry(*sizes[row.id]))
                mask = encode_mask(whole) if whole.any() else None
            why = (
                f"probability {chance:.2f}, spread from {counted(count, 'decision')}"
                if own is None
                else f"region of {own.who}'s decision, found by heatlas"
            )
            new.append(Decision(row.id, "shortcut", target=result.decided.target, mask=mask, who=WHO, why=why, source=SPREAD,
                                supersedes=None if own is None else own.decision_id))  # fmt: skip
    return undone + new


def _sentence(result: ClassSpread, class_names: Sequence[str]) -> str:
    labels, decided = result.labels, result.decided
    marked, clean = int((decided.labels == 1).sum()), int((decided.labels == 0).sum())
    carrying = int((result.probability > 0.5).sum())
    where = {"painted": "by painted regions", "direction": "by what tells marked images from clean ones", "none": ""}[
        result.how
    ]
    masks = f"; {counted(len(result.regions), 'mask')} {where}" if result.regions else "; no masks"
    return (
        f"{class_name(class_names, decided.target)}: {marked} shortcut and {clean} core decisions spread to {counted(len(result.read), 'image')}; "
        f"{carrying:,} carry the mark{masks}. Held out, {100 * labels.accuracy:.0f} % of {len(labels.truth)} decisions are met (Brier score {labels.brier:.3f})."
    )
