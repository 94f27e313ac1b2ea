"""The columns of the store and what its metadata says. One row is one (sample, target, method).

Knows Arrow and Parquet, not where files lie. The types were measured on pandas, polars, DuckDB, Hugging Face datasets and
Lance: float16 in a fixed-size list is the one that all read and DuckDB computes with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from ...engine.chance_map_names import CHANCE_MAP_NAMES
from ...errors import SettingsError
from .earlier_columns import RENAMED_COLUMNS

SCHEMA_VERSION = 3
"""Of what is written. Stores of version 2, which lack the columns of the whole image and the origin of parts, are read, too, and so
are those of version 3 that development versions before heatlas 0.2.0 wrote: `earlier_columns` knows what they call otherwise, `migrate` makes stores of today out of them."""
METADATA_KEY = b"heatlas"
ROW_KEY = ("id", "object_id", "target", "method")
"""The columns that name a row; stores from before heatlas 0.2.0 lack `object_id`, which is null for whole images anyway."""
_PNG_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_BOX_TYPE = pa.struct([(name, pa.float64()) for name in ("x0", "y0", "x1", "y1")])
_BEFORE_MAPS: tuple[tuple[str, pa.DataType], ...] = (
    ("id", pa.string()), ("uri", pa.string()), ("label", pa.int32()), ("prediction", pa.int32()), ("target", pa.int32()),
    ("method", pa.string()), ("confidence", pa.float64()), ("logit", pa.float64()), ("status", pa.string()),
    ("error", pa.string()), ("height", pa.int32()), ("width", pa.int32()), ("object_id", pa.string()), ("box", _BOX_TYPE),
)  # fmt: skip
_TOP_TYPE = pa.list_(pa.struct([("index", pa.int32()), ("name", pa.string()), ("confidence", pa.float64())]))
_WHOLE_IMAGE: tuple[tuple[str, pa.DataType], ...] = (
    ("source_size", pa.int64()), ("source_hash", pa.string()), ("label_name", pa.string()), ("prediction_name", pa.string()),
    ("label_confidence", pa.float64()), ("top_k", _TOP_TYPE),
)  # fmt: skip
"""What was read and what the model says of it as a whole, equal in all rows of an image."""
_AFTER_METRICS: tuple[tuple[str, pa.DataType], ...] = (
    ("mask_counts", pa.list_(pa.int32())), ("n_masks", pa.int64()), ("n_forwards", pa.int64()),
    ("n_backwards", pa.int64()), ("padded_forwards", pa.int64()), ("surrogate_error", pa.float64()),
    ("seconds", pa.float64()), ("device", pa.string()), ("precision", pa.string()),
)  # fmt: skip
EXTRA_TYPES = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
"""What a column of the data set's own may be, by the name that the files' metadata gives it."""
EXTRA_KEY = "extra_columns"
METHOD_KEY = "method_columns"
RESERVED = frozenset(name for name, _ in (*_BEFORE_MAPS, *_WHOLE_IMAGE, *_AFTER_METRICS)) | {
    "map",
    "map_png",
    "floors",
    "features",
    *RENAMED_COLUMNS,
}


@dataclass(frozen=True)
class MethodColumn:
    """What a method gives beside its map: one number, or numbers of a fixed shape."""

    name: str
    shape: tuple[int, ...]
    """Of one row's value; empty for one number."""
    meaning: str

    @property
    def type(self) -> pa.DataType:
        return pa.list_(pa.float16(), math.prod(self.shape)) if self.shape else pa.float64()


@dataclass(frozen=True)
class StoreLayout:
    """What the files of one run look like; plain values, so that it travels to the workers."""

    input_size: tuple[int, int]
    """Height and width of the network's input, which is the resolution of the maps that come in."""
    method: str = "sise"
    metrics: tuple[str, ...] = ()
    """Metric columns, in this order."""
    extra: tuple[tuple[str, str], ...] = ()
    """Columns of the data set's own, behind all others: name and type, one of `EXTRA_TYPES`."""
    method_columns: tuple[MethodColumn, ...] = ()
    """What else the method gives, in this order, behind the costs."""
    chance_metrics: tuple[str, ...] = ()
    """Metrics of chance maps that the column `floors` holds; none: no such column."""
    map_size: int | Literal["input"] = 56
    """Longer side of the stored map in pixels; `input` keeps full resolution. Maps are never enlarged."""
    with_map: bool = True
    with_png: bool = True
    feature_width: int | None = None
    """Numbers in `features`, the penultimate features of the whole image; None: no such column."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able facts for the files' metadata: `metrics` (name -> definition id, unit ...), `class_names`, `provenance`."""

    def __post_init__(self) -> None:
        if self.map_size != "input" and (not isinstance(self.map_size, int) or self.map_size < 1):
            raise SettingsError(
                f"store.map_size must be 'input' or at least 1 pixel, got {self.map_size!r}; leave it out for 56"
            )
        own = [column.name for column in self.method_columns]
        if taken := {*RESERVED, *self.metrics}.intersection(own):
            raise SettingsError(
                f"method {self.method} has an extra {min(taken)!r}, which is a column of the store already; it must be named otherwise"
            )
        if taken := RESERVED.intersection(self.metrics):
            raise SettingsError(
                f"the metric name {min(taken)!r} is a column of every store; name the metric differently"
            )

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of the stored map: the input's aspect, the longer side `map_size`, each side at least 1."""
        height, width = self.input_size
        longer = max(height, width)
        if self.map_size == "input" or self.map_size >= longer:
            return height, width
        scale = self.map_size / longer
        return max(1, round(height * scale)), max(1, round(width * scale))

    def schema(self) -> pa.Schema:
        """The Arrow schema with all metadata."""
        height, width = self.map_shape
        maps = [("map", pa.list_(pa.float16(), height * width))] if self.with_map else []
        pngs = [("map_png", _PNG_TYPE)] if self.with_png else []
        features = [("features", pa.list_(pa.float16(), self.feature_width))] if self.feature_width else []
        metrics = [(name, pa.float64()) for name in self.metrics]
        chance = [("floors", self.chance_type)] if self.chance_metrics else []
        method = [(column.name, column.type) for column in self.method_columns]
        extra = [(name, EXTRA_TYPES[kind]) for name, kind in self.extra]
        return pa.schema(
            [
                *_BEFORE_MAPS,
                *_WHOLE_IMAGE,
                *features,
                *maps,
                *pngs,
                *metrics,
                *chance,
                *_AFTER_METRICS,
                *method,
                *extra,
            ],
            metadata=self._metadata(),
        )

    @property
    def chance_type(self) -> pa.DataType:
        """Struct of chance maps, each a struct of metrics: beside the scores in the same row, and in no mean over a metric's column."""
        values = pa.struct([(name, pa.float64()) for name in self.chance_metrics])
        return pa.struct([(name, values) for name in CHANCE_MAP_NAMES])

    def _metadata(self) -> dict[bytes, bytes]:
        (height, width), (input_height, input_width) = self.map_shape, self.input_size
        facts: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "method": self.method, **self.metadata}
        if self.with_map:
            facts["map"] = {"height": height, "width": width, "value_range": [0.0, 1.0], "order": "rows from the top",
                            "reduction": "area average of the map at input resolution"}  # fmt: skip
        if self.with_png:
            facts["map_png"] = {"height": input_height, "width": input_width, "value_range": [0, 255]}
        if self.feature_width:
            facts["features"] = {"width": self.feature_width, "layer": "input of the layer that gives the logits"}
        if self.method_columns:
            facts[METHOD_KEY] = {
                column.name: {"shape": list(column.shape), "meaning": column.meaning} for column in self.method_columns
            }
        if self.extra:
            facts[EXTRA_KEY] = dict(self.extra)
        metadata = {METADATA_KEY: json.dumps(facts, sort_keys=True).encode()}
        if self.with_png:  # what makes Hugging Face datasets decode the column
            metadata[b"huggingface"] = json.dumps({"info": {"features": {"map_png": {"_type": "Image"}}}}).encode()
        return metadata


def row_keys(table: pa.Table) -> list[tuple[Any, ...]]:
    """What names each row: its values of `ROW_KEY`, None for a column that the table lacks."""
    columns = [table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in ROW_KEY]
    return list(zip(*columns, strict=True))


def read_metadata(schema: pa.Schema) -> dict[str, Any]:
    """The facts that `StoreLayout` wrote into a file: sizes, ranges, definitions, class names, provenance."""
    return json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))


def metric_columns(schema: pa.Schema) -> list[str]:
    """Those of a store's columns that are metrics, in stored order."""
    others = {*RESERVED, *extra_columns(schema), *method_columns(schema)}
    return [name for name in schema.names if name not in others]


def method_columns(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Those of a store's columns that its method gave beside the map: `shape` and `meaning` by name."""
    return read_metadata(schema).get(METHOD_KEY, {})


def extra_columns(schema: pa.Schema) -> dict[str, str]:
    """Those of a store's columns that came with the data set: name and type."""
    return read_metadata(schema).get(EXTRA_KEY, {})
