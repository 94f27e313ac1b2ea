"""What tables that hold images have in common, Parquet files and Hugging Face directories: which column is the image, what
its labels are called, and their other columns."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ....errors import DataError, did_you_mean
from .columns import TABLE_COLUMNS, as_spelt, check_mapping, present_columns
from .label_columns import label_notes
from .manifest_files import others_in
from .options import SourceOptions
from .plain_values import is_binary, plain_column
from .table import BOXES


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of the columns, by name; empty where there is none."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = described.get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    return features if isinstance(features, dict) else {}


def image_columns(schema: pa.Schema) -> list[str]:
    """The columns that can hold images: those called so by Hugging Face, else those of bytes."""
    features = features_of(schema)
    named = [name for name in schema.names if _kind(features, name) == "Image"]
    return named or [name for name in schema.names if is_binary(schema.field(name).type)]


def _kind(features: Mapping[str, Any], name: str) -> str | None:
    feature = features.get(name)
    return feature.get("_type") if isinstance(feature, dict) else None


class TableColumns:
    """Which columns of a table are read, and as what.

    Raises:
        DataError: If the image's column is not there or not clear, or a column that was mapped is missing.
    """

    def __init__(self, schema: pa.Schema, options: SourceOptions, origin: str):
        mapping, self.notes = as_spelt(check_mapping(options.columns, TABLE_COLUMNS), schema.names)
        self.origin = origin
        features = features_of(schema)
        if "label" not in schema.names and mapping["label"] == "label":
            mapping["label"] = _label_column(features, self.notes, origin)
        self.image = _image_column(schema, options.columns.get("image"), mapping["mask"], origin)
        present = present_columns(mapping, schema.names, origin)
        self.mask = present.pop("mask", None)
        if self.mask is not None and not is_binary(schema.field(self.mask).type):
            self.mask = None  # such as a class index per image: one of the data set's own
        self.ours = present
        taken = {**present, "image": self.image, **({"mask": self.mask} if self.mask else {})}
        self.others = [
            name for name in others_in(schema.names, taken, options.extra) if not is_binary(schema.field(name).type)
        ]
        label = present.get("label", "")
        if _of_several(features.get(label)):
            raise DataError(f"column {label!r} of {origin} has several classes per image; name a column with one, or leave --columns.label out")  # fmt: skip
        self.class_names = _class_names(features.get(label))
        self.notes += label_notes(mapping, present, schema.names, {}) if not self.notes else []

    @property
    def wanted(self) -> list[str]:
        """Columns to read while listing: none with images."""
        return list(dict.fromkeys([*self.ours.values(), *self.others]))

    def read(self, table: pa.Table) -> tuple[dict[str, pa.ChunkedArray], dict[str, pa.ChunkedArray]]:
        """Ours by the names of a listing, and the data set's own, from a table with the columns `wanted`.

        Raises:
            DataError: If ids, labels or boxes have a type that cannot be one.
        """
        known = {ours: self._column(table[name], ours, name) for ours, name in self.ours.items()}
        if self.class_names and "label" in known:
            known["label"] = _named(known["label"], self.class_names, self.origin)
        return known, {name: plain_column(table[name]) for name in self.others}

    def _column(self, column: pa.ChunkedArray, ours: str, name: str) -> pa.ChunkedArray:
        try:
            if ours == "boxes":
                return column.cast(BOXES)
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if pa.types.is_floating(column.type):  # class indices of a pandas column with gaps
                column = column.cast(pa.int64())
            return column.cast(pa.string())
        except pa.ArrowException as error:
            raise DataError(f"column {name!r} of {self.origin} is {column.type}, which cannot be {ours}: {error}; "
                            f"name another with --columns.{ours}") from error  # fmt: skip


def _image_column(schema: pa.Schema, wanted: str | None, mask: str, origin: str) -> str:
    if wanted is not None:
        if wanted not in schema.names:
            raise DataError(f"{origin} has no column {wanted!r}{did_you_mean(wanted, schema.names)}; it has {', '.join(map(repr, schema.names))}")  # fmt: skip
        if not is_binary(schema.field(wanted).type):
            raise DataError(f"column {wanted!r} of {origin} is {schema.field(wanted).type}, not image bytes; for paths give a manifest: --data manifest:...")  # fmt: skip
        return wanted
    candidates = [name for name in image_columns(schema) if name != mask]
    if not candidates:
        raise DataError(f"{origin} has no column with image bytes (binary, or a struct of bytes and path); it has {', '.join(map(repr, schema.names))}")  # fmt: skip
    if len(candidates) > 1 and "image" not in candidates:
        raise DataError(f"{origin} has several columns with image bytes: {', '.join(map(repr, candidates))}; choose with --columns.image {candidates[0]}")  # fmt: skip
    return "image" if "image" in candidates else candidates[0]


def _label_column(features: Mapping[str, Any], notes: list[str], origin: str) -> str:
    """The only column that Hugging Face calls class labels; `label`, which is not there, where there is none.

    Raises:
        DataError: If there are several.
    """
    candidates = [name for name in features if _kind(features, name) == "ClassLabel"]
    if len(candidates) > 1:
        choices = " or ".join(f"--columns.label {name}" for name in candidates)
        raise DataError(f"{origin} has {len(candidates)} columns with class labels; choose one: {choices}")
    if candidates:
        notes.append(f"the column {candidates[0]!r} of class labels is taken for 'label'")
        return candidates[0]
    if several := [name for name, feature in features.items() if _of_several(feature)]:
        notes.append(f"the images have no label: the column {several[0]!r} has several classes per image")
    return "label"


def _of_several(feature: Any) -> bool:
    """Whether Hugging Face describes a list of class labels."""
    inner = (
        feature.get("feature")
        if isinstance(feature, dict)
        else feature[0]
        if isinstance(feature, list) and feature
        else None
    )
    return isinstance(inner, dict) and inner.get("_type") == "ClassLabel"


def _class_names(feature: Any) -> tuple[str, ...] | None:
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    if isinstance(names, Mapping):  # as the YAML of a data set's card has them, by number
        names = [names[key] for key in sorted(names, key=int)] if all(str(key).isdecimal() for key in names) else None
    return tuple(map(str, names)) if isinstance(names, Sequence) and names else None


def _named(indices: pa.ChunkedArray, names: Sequence[str], origin: str) -> pa.ChunkedArray:
    """Class names for their indices; -1, by which Hugging Face says that there is none, becomes null."""
    numbers = indices.cast(pa.int64())
    numbers = pc.if_else(pc.equal(numbers, -1), pa.scalar(None, pa.int64()), numbers)
    highest = pc.max(numbers).as_py()
    if highest is not None and (highest >= len(names) or pc.min(numbers).as_py() < 0):
        raise DataError(
            f"a label of {origin} is outside of its {len(names)} class names: {highest}; correct its features"
        )
    return pc.take(pa.chunked_array([pa.array(names, pa.string())]), numbers.combine_chunks())
