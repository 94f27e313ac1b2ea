"""The table `STORE/features/images.parquet`: one row per image with its features, confidences and hashes."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int, UInt8

from ...errors import StorageError
from ..storage.atomic_write import put
from ..storage.location import child, locate, names_in

if TYPE_CHECKING:
    from ..store.reader import StoreReader

FOLDER, NAME = "features", "images.parquet"
METADATA_KEY = b"heatlas_features"
NO_LABEL = -1
MOST_NUMBERS = 500_000_000
"""Features and confidences that are read from the rows of a store."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What the model says of every image that could be read, by id."""

    ids: tuple[str, ...]
    labels: Int[np.ndarray, " image"]
    """Class indices; `NO_LABEL` where there is none."""
    features: Float[np.ndarray, "image feature"]
    """What the classifying layer is given."""
    confidences: Float[np.ndarray, "image class"]
    """In [0, 1], of every class."""
    hashes: UInt8[np.ndarray, "hashed 8"]
    """Perceptual ones, of all images or, from the rows of a store, of none."""
    mirrored: UInt8[np.ndarray, "hashed 8"]
    """Hashes of the mirrored images."""
    facts: dict[str, Any] = field(default_factory=dict)
    """`model` (digest), `confidence` (softmax or sigmoid), `failed` (images that could not be read)."""

    @property
    def predictions(self) -> Int[np.ndarray, " image"]:
        return self.confidences.argmax(axis=1)

    def table(self) -> pa.Table:
        """Features and confidences as float16, sorted by id."""
        columns = {
            "id": pa.array(self.ids, pa.string()),
            "label": pa.array(self.labels, pa.int32(), mask=self.labels == NO_LABEL),
            "features": _lists(self.features.astype(np.float16), pa.float16()),
            "confidences": _lists(self.confidences.astype(np.float16), pa.float16()),
            "hash": _lists(self.hashes, pa.uint8()),
            "mirrored_hash": _lists(self.mirrored, pa.uint8()),
        }
        return pa.table(columns).sort_by("id").replace_schema_metadata({METADATA_KEY: json.dumps(self.facts).encode()})


def write_features(out: str, features: ImageFeatures) -> str:
    """Write the table beside the store, over an older one; returns its URI."""
    buffer, uri = io.BytesIO(), child(out, f"{FOLDER}/{NAME}")
    pq.write_table(features.table(), buffer, compression="zstd")
    put(uri, buffer.getvalue())
    return uri


def features_of(atlas: StoreReader) -> ImageFeatures | None:
    """The features of a store's images: those of `heatlas curate STORE --probe`, else the column `features` of its rows; None without both.

    The rows hold no hashes, and of the confidences only the highest and the label's: what is left is spread over the other classes.

    Raises:
        StorageError: If they cannot be read.
    """
    fs, path = locate(child(atlas.uri, FOLDER))
    if NAME not in names_in(fs, path):
        return features_of_rows(atlas)
    try:
        with fs.open(f"{path}/{NAME}", "rb") as file:
            table = pq.read_table(pa.PythonFile(file))
        facts = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        return ImageFeatures(
            tuple(table["id"].to_pylist()),
            table["label"].fill_null(NO_LABEL).to_numpy().astype(np.int64),
            _matrix(table["features"]).astype(np.float32),
            _matrix(table["confidences"]).astype(np.float32),
            _matrix(table["hash"]),
            _matrix(table["mirrored_hash"]),
            facts,
        )
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StorageError(f"cannot read the features in {atlas.uri}/{FOLDER}/{NAME}: {error}; run `heatlas curate {atlas.uri} "
                           "--probe` again") from error  # fmt: skip


def features_of_rows(atlas: StoreReader) -> ImageFeatures | None:
    """The same from the rows of a store whose run kept features; None where it kept none, or what it kept would fill the memory."""
    names = ("features", "top_k", "label_confidence")
    if not set(names) <= set(atlas.schema.names):
        return None
    width = atlas.schema.field("features").type.list_size
    classes, several = len(atlas.class_names), is_sigmoid(atlas)
    count = atlas.count("features IS NOT NULL")
    if not count or count * (width + classes) > MOST_NUMBERS:
        return None
    rows = atlas.table(["id", "target", "label", *names], "features IS NOT NULL").sort_by(
        [("id", "ascending"), ("target", "ascending")]
    )
    ids = rows["id"].to_pylist()
    first = pa.array(
        [place for place, identity in enumerate(ids) if place == 0 or ids[place - 1] != identity], pa.int64()
    )
    rows = rows.take(first)
    labels, tops, stated = (rows[name].to_pylist() for name in ("label", "top_k", "label_confidence"))
    classes = max(
        [
            classes,
            *(entry["index"] + 1 for top in tops for entry in top or ()),
            *(label + 1 for label in labels if label is not None),
        ]
    )
    confidences = np.zeros((len(rows), classes), np.float32)
    for row, (label, top, own) in enumerate(zip(labels, tops, stated, strict=True)):
        known = {entry["index"]: entry["confidence"] for entry in top or () if entry["confidence"] is not None}
        if label is not None and own is not None:
            known[label] = own
        if not several and len(known) < classes:
            confidences[row] = max(0.0, 1 - sum(known.values())) / (classes - len(known))
        confidences[row, list(known)] = list(known.values())
    facts = {"confidence": "sigmoid" if several else "softmax", "from": "rows"}
    none = np.empty((0, 8), np.uint8)
    return ImageFeatures(
        tuple(rows["id"].to_pylist()), np.array([NO_LABEL if label is None else label for label in labels], np.int64),
        _matrix(rows["features"]).astype(np.float32), confidences, none, none, facts,
    )  # fmt: skip


def is_sigmoid(atlas: StoreReader) -> bool:
    """Whether an image of the store may have several classes."""
    stated = atlas.metadata.get("provenance", {}).get("settings", {})
    return stated.get("confidence", stated.get("score")) == "sigmoid"


def _lists(values: np.ndarray, kind: pa.DataType) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel(), kind), values.shape[1])


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    width = column.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(chunks).reshape(-1, width) if chunks else np.empty((0, width))
