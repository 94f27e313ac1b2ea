"""Make the tables that recipes read about features: the quality of labels, outliers and duplicate images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ...errors import UsageError
from ..features.cue_table import SCHEMA as CUES
from ..features.cue_table import cues_of
from ..features.image_table import NO_LABEL, ImageFeatures, features_of, is_sigmoid
from ..features.label_ranking import LabelProbes, label_probes, label_quality
from ..features.neighbours import find_duplicates, find_outliers
from ..storage.location import bytes_of, locate

if TYPE_CHECKING:
    from ..store.reader import StoreReader

SCHEMAS: Mapping[str, pa.Schema] = {
    "label_quality": pa.schema(
        [
            ("id", pa.string()), ("suspicion", pa.float64()), ("suggested", pa.int32()), ("accused", pa.bool_()),
            ("model_confidence", pa.float64()), ("probe_confidence", pa.float64()), ("estimated_wrong", pa.float64()),
            ("wrong_from", pa.float64()), ("wrong_to", pa.float64()), ("class_seen", pa.bool_()),
        ]
    ),
    "cues": CUES,
    "outliers": pa.schema([("id", pa.string()), ("distance", pa.float64()), ("deviations", pa.float64()), ("nearest", pa.string())]),
    "image_duplicates": pa.schema(
        [("id", pa.string()), ("twin", pa.string()), ("bits", pa.int64()), ("cosine", pa.float64()), ("mirrored", pa.bool_())]
    ),
}  # fmt: skip
"""Tables by name; without rows where the store has no features."""
_IDS_AS_TEXT = pyarrow.csv.ConvertOptions(column_types={"id": pa.string()})
"""An id of digits keeps its zeros."""
NEED_FEATURES = frozenset({"outliers", "image_duplicates"})
"""Tables without which a recipe cannot run."""


def make_feature_tables(
    atlas: StoreReader, names: frozenset[str], confidences: tuple[list[str], np.ndarray] | None = None
) -> dict[str, pa.Table]:
    """Those of the tables that are named.

    Args:
        atlas: The store.
        names: Out of `SCHEMAS`.
        confidences: The user's own, ids and `(id, class)`; None for the model's.

    Raises:
        StorageError: If the features cannot be read.
    """
    tables = {name: SCHEMAS[name].empty_table() for name in names & SCHEMAS.keys()}
    features = features_of(atlas) if tables else None
    if "label_quality" in tables and (features is not None or confidences is not None):
        tables["label_quality"] = _label_table(atlas, features, confidences)
    if "cues" in tables and (cues := cues_of(atlas)) is not None:
        tables["cues"] = cues
    if features is None:
        return tables
    if "outliers" in tables:
        far = find_outliers(features.features, features.labels)
        tables["outliers"] = pa.table(
            [
                pa.array(features.ids, pa.string()),
                pa.array(far.distance),
                pa.array(far.deviations),
                pa.array([features.ids[place] for place in far.nearest], pa.string()),
            ],
            schema=SCHEMAS["outliers"],
        )
    if "image_duplicates" in tables and len(features.hashes):
        pairs = find_duplicates(features.features, features.hashes, features.mirrored)
        columns = [
            pa.array([features.ids[place] for place in pairs.row], pa.string()),
            pa.array([features.ids[place] for place in pairs.other], pa.string()),
            pa.array(pairs.bits, pa.int64()), pa.array(pairs.cosine.astype(np.float64)), pa.array(pairs.mirrored.astype(bool)),
        ]  # fmt: skip
        tables["image_duplicates"] = pa.table(columns, schema=SCHEMAS["image_duplicates"])
    return tables


def read_confidences(uri: str, class_names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The user's own confidences: a Parquet or CSV file with the column `id` and one column per class, by name or index.

    Raises:
        UsageError: For a file that cannot be read, lacks a column, or has a value outside [0, 1].
    """
    ending = os.path.splitext(uri)[1].lower()
    if ending not in (".parquet", ".csv"):
        raise UsageError(f"--probs {uri!r} must end in .parquet or .csv")
    fs, path = locate(uri)
    try:
        data = pa.BufferReader(bytes_of(fs, path))
        table = (
            pq.read_table(data) if ending == ".parquet" else pyarrow.csv.read_csv(data, convert_options=_IDS_AS_TEXT)
        )
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"cannot read --probs {uri}: {error}") from error
    names = list(class_names) or [name for name in table.column_names if name != "id"]
    if not set(names) <= set(table.column_names):
        names = [str(index) for index in range(len(names))]
    if missing := [name for name in ("id", *names) if name not in table.column_names]:
        raise UsageError(
            f"--probs {uri} has no column {missing[0]!r}; it needs `id` and one column per class, by name or index"
        )
    ids = [str(identity) for identity in table["id"].to_pylist()]
    if twice := [identity for identity, count in Counter(ids).items() if count > 1]:
        raise UsageError(f"--probs {uri} has the id {twice[0]!r} more than once; it needs one row per image")
    try:
        values = np.column_stack([table[name].to_numpy().astype(np.float64) for name in names])
    except (ValueError, TypeError) as error:
        raise UsageError(f"--probs {uri} must hold confidences from 0 to 1: {error}") from None
    if not ((values >= 0) & (values <= 1)).all():
        raise UsageError(f"--probs {uri} must hold confidences from 0 to 1")
    return ids, values


def _label_table(
    atlas: StoreReader, features: ImageFeatures | None, own: tuple[list[str], np.ndarray] | None
) -> pa.Table:
    if own is not None:
        stored = dict(zip(*atlas.table(["id", "label"]).to_pydict().values(), strict=True))
        if not set(own[0]) & stored.keys():
            named = f", such as {own[0][0]!r}," if own[0] else ""
            raise UsageError(
                f"none of the {len(own[0]):,} ids in --probs{named} is one of {atlas.uri}, whose ids look like {min(stored, default='')!r}"
            )
        places = [place for place, identity in enumerate(own[0]) if stored.get(identity) is not None]
        ids, values = [own[0][place] for place in places], own[1][places]
        labels = np.array([stored[identity] for identity in ids], np.int64)
    else:
        assert features is not None
        kept = features.labels != NO_LABEL
        ids, values = (
            [identity for identity, keep in zip(features.ids, kept, strict=True) if keep],
            features.confidences[kept],
        )
        labels = features.labels[kept]
    if not len(labels):
        return SCHEMAS["label_quality"].empty_table()
    several = is_sigmoid(atlas) if features is None else features.facts.get("confidence") == "sigmoid"
    probes = None if features is None or several else _probes(features, ids, values, labels)
    quality = label_quality(values, probes, labels, several=several, held_out=own is not None)
    rows, count = np.arange(len(labels)), len(labels)
    of_probe = quality.probe[rows, labels]
    columns = [
        pa.array(ids, pa.string()), pa.array(quality.suspicion), pa.array(quality.suggested.astype(np.int32), mask=quality.suggested < 0),
        pa.array(quality.accused), pa.array(values[rows, labels].astype(np.float64)), pa.array(of_probe, mask=np.isnan(of_probe)),
        *(pa.array(np.full(count, number, np.float64)) for number in (quality.estimated_wrong, *quality.wrong_range)),
        pa.array(quality.class_seen),
    ]  # fmt: skip
    return pa.table(columns, schema=SCHEMAS["label_quality"])


def _probes(features: ImageFeatures, ids: list[str], values: np.ndarray, labels: np.ndarray) -> LabelProbes | None:
    """Of the images that have features; NaN for the others, None without any."""
    known = {identity: place for place, identity in enumerate(features.ids)}
    there = np.array([identity in known for identity in ids])
    if not there.any():
        return None
    own = features.features[[known[identity] for identity in ids if identity in known]]
    made = label_probes(values[there], own, labels[there])
    probe, cleaned = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    probe[there], cleaned[there] = made.probe, made.cleaned
    return LabelProbes(probe, cleaned)
