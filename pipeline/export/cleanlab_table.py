"""One row per image for confident learning: its label and what the store knows of the model's probabilities.

The full `pred_probs` that cleanlab wants come from the store's `top_k`, which lists all classes of a model with at most 100 of them
(`--store.top-k`), or from what the explained classes determine: with two classes, or where all but one are explained. The rest is told
as what it is: unknown, with an upper bound for the label.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import UsageError
from ..settings.renamed import current_names
from ..text import counted
from .chosen import Chosen

WANTED = ("id", "uri", "label", "prediction", "target", "confidence", "status")
FIXED = (
    ("id", pa.string()), ("uri", pa.string()), ("label", pa.int32()), ("label_name", pa.string()), ("prediction", pa.int32()),
    ("self_confidence", pa.float64()), ("self_confidence_at_most", pa.float64()), ("known_classes", pa.list_(pa.int32())),
    ("known_probs", pa.list_(pa.float64())), ("pred_probs", pa.list_(pa.float64())), ("status", pa.string()),
)  # fmt: skip


def write_cleanlab(chosen: Chosen, path: Path) -> int:
    """Write the Parquet file.

    Returns:
        Images.

    Raises:
        UsageError: If a column was asked for that the file has anyway.
    """
    classes = len(chosen.names)
    taken = {name for name, _ in FIXED}
    extra = [name for name in chosen.columns or () if name not in taken]
    if clash := [name for name in chosen.columns or () if name in taken]:
        raise UsageError(f"--columns {clash[0]}: this format has it anyway; name only what is to stand beside it")
    schema = pa.schema([*FIXED, *(chosen.atlas.schema.field(name) for name in extra)])
    softmax = current_names(chosen.atlas.run["settings"]).get("confidence", "softmax") in ("softmax", "auto")
    whole_image = [
        name for name in ("top_k", "label_confidence") if name in chosen.atlas.schema.names and name not in extra
    ]
    images = complete = labelled = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for some in _chunks(_images(chosen, [*WANTED, *whole_image, *extra]), 10_000):
            rows = [image_row(rows, classes if softmax else 0, chosen, extra) for rows in some]
            images += len(rows)
            complete += sum(row["pred_probs"] is not None for row in rows)
            labelled += sum(row["self_confidence"] is not None for row in rows)
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    chosen.notes += _missing(images, complete, labelled)
    return images


def image_row(
    rows: Sequence[Mapping[str, Any]], classes: int, chosen: Chosen, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """What is known of one image.

    Args:
        rows: Its rows, one per explained class.
        classes: Of the model; 0 where their probabilities do not sum to 1.
        chosen: For names.
        extra: Columns to copy.
    """
    first = rows[0]
    known: dict[int, float] = {
        entry["index"]: entry["confidence"] for entry in first.get("top_k") or () if entry["confidence"] is not None
    }
    if first["label"] is not None and first.get("label_confidence") is not None:
        known[first["label"]] = first["label_confidence"]
    known |= {
        row["target"]: row["confidence"] for row in rows if row["target"] is not None and row["confidence"] is not None
    }
    rest = max(0.0, 1.0 - sum(known.values()))
    if classes and len(known) == classes - 1:
        known[next(index for index in range(classes) if index not in known)] = rest
    label, most = first["label"], None
    own = known.get(label) if label is not None else None
    if own is None and label is not None and known and classes:
        most = min(rest, known.get(first["prediction"], 1.0))  # no class is more probable than the predicted one
    return {
        "id": first["id"], "uri": first["uri"], "label": label, "label_name": chosen.name_of(label), "prediction": first["prediction"],
        "self_confidence": own, "self_confidence_at_most": own if own is not None else most, "known_classes": sorted(known),
        "known_probs": [known[index] for index in sorted(known)], "status": first["status"],
        "pred_probs": [known[index] for index in range(classes)] if classes and len(known) == classes else None,
        **{name: first[name] for name in extra},
    }  # fmt: skip


def _images(chosen: Chosen, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
    rows = itertools.chain.from_iterable(table.to_pylist() for table in chosen.batches(columns))
    for _, group in itertools.groupby(rows, key=lambda row: row["id"]):  # the rows of an image stand together
        yield list(group)


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    source = iter(items)
    while some := list(itertools.islice(source, size)):
        yield some


def _missing(images: int, complete: int, labelled: int) -> list[str]:
    notes = []
    if complete < images:
        notes.append(
            f"pred_probs is null for {counted(images - complete, 'image')}: the store does not hold every class's confidence there; "
            "a run with --store.top-k of the number of classes does"
        )
    if labelled < images:
        notes.append(f"self_confidence is null for {counted(images - labelled, 'image')}, self_confidence_at_most bounds it; an explain run "
                     "with --target both knows the label's")  # fmt: skip
    return notes
