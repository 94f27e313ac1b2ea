"""The table `STORE/features/cues.parquet`: the strongest cue of each class, and which images carry it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError
from ..storage.atomic_write import put
from ..storage.location import child, locate, names_in
from ..text import class_name, counted
from .cue_thresholds import LEAST_TRANSFER
from .image_table import FOLDER

if TYPE_CHECKING:
    from ..store.reader import StoreReader
    from .cues import CueSearch

NAME = "cues.parquet"
METADATA_KEY = b"heatlas_cues"
SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("cue_class", pa.int32()), ("kind", pa.string()), ("share", pa.float64()), ("carrying", pa.int64()),
        ("transfer", pa.float64()), ("chance", pa.float64()), ("separation", pa.float64()), ("carries", pa.float64()), ("guilty", pa.bool_()),
    ]
)  # fmt: skip
"""One row per image that carries the strongest candidate of its class (how sure: `carries`); `guilty` where it decides for the class by itself."""
KIND_TEXTS = {
    "pixels": "a mark at one place",
    "colour": "a colour",
    "spectrum": "a texture",
    "patch": "a mark at any place",
}


def write_cues(out: str, search: CueSearch, ids: Sequence[str]) -> str:
    """Write what was found beside the store, over an older table; returns its URI."""
    rows = [
        {"id": ids[row], "cue_class": cue.label, "kind": cue.kind, "share": cue.share, "carrying": len(cue.rows), "transfer": cue.transfer,
         "chance": cue.chance, "separation": cue.separation, "carries": float(cue.carries[np.searchsorted(cue.all_rows, row)]),
         "guilty": cue.guilty}
        for cue in search.cues for row in cue.rows
    ]  # fmt: skip
    facts = {
        "skipped": {str(label): why for label, why in search.skipped.items()},
        "least_transfer": dict(LEAST_TRANSFER),
        "why_none": search.why_none,
    }
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({METADATA_KEY: json.dumps(facts).encode()}))
    buffer, uri = io.BytesIO(), child(out, f"{FOLDER}/{NAME}")
    pq.write_table(table, buffer, compression="zstd")
    put(uri, buffer.getvalue())
    return uri


def cues_of(atlas: StoreReader) -> pa.Table | None:
    """The cues of a store, as `SCHEMA`; None where nobody looked for them.

    Raises:
        StorageError: If the table cannot be read.
    """
    fs, path = locate(child(atlas.uri, FOLDER))
    if NAME not in names_in(fs, path):
        return None
    try:
        with fs.open(f"{path}/{NAME}", "rb") as file:
            table = pq.read_table(pa.PythonFile(file))
        return table.select(SCHEMA.names).cast(SCHEMA.with_metadata(table.schema.metadata))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StorageError(f"cannot read the cues in {atlas.uri}/{FOLDER}/{NAME}: {error}; run `heatlas curate {atlas.uri} --probe` again") from error  # fmt: skip


@dataclass(frozen=True)
class ClassCue:
    """The strongest cue of one class."""

    label: int
    kind: str
    share: float
    """Of the class's correct predictions."""
    carrying: int
    """Images."""
    transfer: float
    """Mean rise of the class's confidence in other classes' images that were given the cue."""
    chance: float
    strength: float
    """`transfer` in units of what counts."""
    guilty: bool


def class_cues(table: pa.Table) -> list[ClassCue]:
    """The strongest cue of each judged class, guilty and strong ones first.

    Args:
        table: As `cues_of` gives it.
    """
    least = {**LEAST_TRANSFER, **_facts(table).get("least_transfer", {})}
    cues = [
        ClassCue(row["cue_class"], row["kind"], row["share"], row["carrying"], row["transfer"], row["chance"],
                 row["transfer"] / least.get(row["kind"], 1.0), row["guilty"])
        for row in {row["cue_class"]: row for row in table.to_pylist()}.values()
    ]  # fmt: skip
    return sorted(cues, key=lambda cue: (not cue.guilty, -cue.strength, cue.label))


def verdict(table: pa.Table, class_names: Sequence[str]) -> str:
    """What the cues say of the data set, in a sentence or two; the same in terminal, queue and report.

    Args:
        table: As `cues_of` gives it.
        class_names: Of the model.
    """
    cues, skipped = class_cues(table), _facts(table).get("skipped")
    left = f" {len(skipped):,} {'class was' if len(skipped) == 1 else 'classes were'} not judged." if skipped else ""
    if not cues:
        why = _facts(table).get("why_none")
        if not why and skipped:
            label, reason = next(iter(skipped.items()))
            why = f"{class_name(class_names, int(label))}: {reason}"
        return f"cannot tell: no class could be judged{f' ({why})' if why else ''}.{left}"
    if not cues[0].guilty:
        first = cues[0]
        return (
            f"nothing beyond chance. The strongest candidate, {KIND_TEXTS.get(first.kind, first.kind)} of {class_name(class_names, first.label)}, "
            f"raises the confidence of other classes' images in it by {first.transfer:.2f} (random halves: at most {first.chance:.2f})"
            + ("." if first.strength >= 1 else f", which is below {first.transfer / first.strength:.2f}." if first.strength > 0 else ".")
            + left
        )  # fmt: skip
    return " ".join(
        f"{counted(cue.carrying, 'image')} of {class_name(class_names, cue.label)} ({100 * cue.share:.0f} %) share {KIND_TEXTS.get(cue.kind, cue.kind)}. "
        f"Given to other classes' images, it raises their confidence in {class_name(class_names, cue.label)} by {cue.transfer:.2f} "
        f"(random halves: at most {cue.chance:.2f})."
        for cue in cues if cue.guilty
    ) + left  # fmt: skip


def _facts(table: pa.Table) -> dict[str, Any]:
    return json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
