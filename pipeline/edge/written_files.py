"""The files of `heatlas edge`: models, sidecar, numbers, agreement by image, and the store's queue of drifted explanations."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...workers.images.preprocess import Preprocess
from ...workers.models.sidecar import sidecar_of
from ..curate.curate import FOLDER as CURATION
from ..curate.queue import FIRST as QUEUE_COLUMNS
from ..storage.atomic_write import put
from ..storage.location import child
from .drift import DriftRow

QUEUE = "edge_drift"
FLOAT_NAME, INT8_NAME = "model.fp32", "model.int8"
"""Without the suffix of the backend's files."""
AGREEMENT = pa.schema(
    [
        ("id", pa.string()), ("label", pa.int32()), ("prediction", pa.int32()), ("edge_prediction", pa.int32()), ("same_prediction", pa.bool_()),
        ("confidence", pa.float64()), ("edge_confidence", pa.float64()), ("spearman", pa.float64()), ("iou", pa.float64()), ("wasserstein", pa.float64()),
        ("noise_spearman", pa.float64()), ("noise_iou", pa.float64()), ("noise_wasserstein", pa.float64()), ("d_ebpg", pa.float64()),
        ("edge_finite", pa.bool_()), ("mask_iou", pa.float64()), ("edge_mask_iou", pa.float64()), ("same_pixels", pa.float64()), ("drift", pa.bool_()),
    ]
)  # fmt: skip
"""Columns of `agreement.parquet`."""


def sidecar_text(preprocess: Preprocess, class_names: Sequence[str]) -> str:
    """What the ONNX file cannot say: preprocessing and class names, so that the file is a `--model` as it lies there."""
    said = {name: value for name, value in asdict(preprocess).items() if value is not None}
    return json.dumps({"preprocess": said, "class_names": list(class_names) or None}, indent=2)


def write_files(
    out: str, models: Mapping[str, bytes], sidecar: str, facts: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> None:
    """Write everything into the folder or URI; `edge.json` last, when all else is there."""
    for name, data in models.items():
        put(child(out, name), data)
        put(child(out, sidecar_of(name)), sidecar.encode())
    _put_table(child(out, "agreement.parquet"), pa.Table.from_pylist([dict(record) for record in records], AGREEMENT))
    put(child(out, "edge.json"), json.dumps(facts, indent=2).encode())


def write_queue(store: str, rows: Sequence[DriftRow], floor: float, stored: Mapping[str, tuple[int, str]]) -> str:
    """Write the drifted rows as a review queue of the store, the least agreement first; returns its URI.

    Args:
        store: Directory or URI.
        rows: All that were measured.
        floor: See `noise_floor`.
        stored: Target and method of the store's rows, by id.
    """
    drifted = sorted(
        (row for row in rows if row.is_drift(floor)),
        key=lambda row: (not row.is_lost, row.agreement.iou if not row.is_lost else 0, row.id),
    )
    queue = [
        {
            "id": row.id, "target": stored[row.id][0], "method": stored[row.id][1], "recipe": QUEUE, "rank": rank,
            "priority": 1.0 if row.is_lost else 1 - row.agreement.iou, "reason": _reason(row, floor),
            "iou": None if row.is_lost else row.agreement.iou, "noise_iou": _number(row.noise.iou), "edge_confidence": _number(row.edge_confidence),
        }
        for rank, row in enumerate(drifted, 1)
    ]  # fmt: skip
    evidence = (("iou", pa.float64()), ("noise_iou", pa.float64()), ("edge_confidence", pa.float64()))
    uri = child(store, f"{CURATION}/{QUEUE}.parquet")
    _put_table(uri, pa.Table.from_pylist(queue, pa.schema([*QUEUE_COLUMNS, *evidence])))
    return uri


def _reason(row: DriftRow, floor: float) -> str:
    if not row.edge_finite:
        return "the edge model's output for the image is not finite"
    if row.is_lost:
        return "the edge model predicts the same class, but its map gives every pixel the same value"
    return (
        f"the edge model predicts the same class, but the strongest regions of the two maps share {row.agreement.iou:.2f} (IoU) under the "
        f"same masks; other masks alone leave {floor:.2f} or more for 95 of 100 images"
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _put_table(uri: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    put(uri, buffer.getvalue())
