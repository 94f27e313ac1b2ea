"""The columns of the store and what its metadata says. One row is one (sample, target, method).

Knows Arrow and Parquet, not where files lie. The types were measured on pandas, polars, DuckDB, Hugging Face datasets and
Lance: float16 in a fixed-size list is the one that all read and DuckDB computes with.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..engine.errors import SettingsError
from ..engine.floor_names import FLOOR_NAMES
from ..engine.statuses import OK
from ..workers.shards import Row

SCHEMA_VERSION = 2
METADATA_KEY = b"heatlas"
ROW_GROUP_BYTES = 4 * 2**20
_PNG_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_BEFORE_MAPS: tuple[tuple[str, pa.DataType], ...] = (
    ("id", pa.string()), ("uri", pa.string()), ("label", pa.int32()), ("prediction", pa.int32()), ("target", pa.int32()),
    ("method", pa.string()), ("score", pa.float64()), ("logit", pa.float64()), ("status", pa.string()),
    ("error", pa.string()), ("height", pa.int32()), ("width", pa.int32()),
)  # fmt: skip
_AFTER_METRICS: tuple[tuple[str, pa.DataType], ...] = (
    ("mask_counts", pa.list_(pa.int32())), ("n_masks", pa.int64()), ("n_forwards", pa.int64()),
    ("n_backwards", pa.int64()), ("surrogate_error", pa.float64()),
    ("seconds", pa.float64()), ("device", pa.string()),
)  # fmt: skip
EXTRA_TYPES = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
"""What a column of the data set's own may be, by the name that the files' metadata gives it."""
EXTRA_KEY = "extra_columns"
METHOD_KEY = "method_columns"
RESERVED = frozenset(name for name, _ in (*_BEFORE_MAPS, *_AFTER_METRICS)) | {"map", "map_png", "floors"}


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
    floors: tuple[str, ...] = ()
    """Metrics that the column `floors` holds of maps that know nothing; none: no such column."""
    map_size: int | Literal["input"] = 56
    """Longer side of the stored map in pixels; `input` keeps full resolution. Maps are never enlarged."""
    with_map: bool = True
    with_png: bool = True
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
        metrics = [(name, pa.float64()) for name in self.metrics]
        floors = [("floors", self.floors_type)] if self.floors else []
        method = [(column.name, column.type) for column in self.method_columns]
        extra = [(name, EXTRA_TYPES[kind]) for name, kind in self.extra]
        return pa.schema(
            [*_BEFORE_MAPS, *maps, *pngs, *metrics, *floors, *_AFTER_METRICS, *method, *extra],
            metadata=self._metadata(),
        )

    @property
    def floors_type(self) -> pa.DataType:
        """Struct of floors, each a struct of metrics: beside the scores in the same row, and in no mean over a metric's column."""
        values = pa.struct([(name, pa.float64()) for name in self.floors])
        return pa.struct([(name, values) for name in FLOOR_NAMES])

    def _metadata(self) -> dict[bytes, bytes]:
        (height, width), (input_height, input_width) = self.map_shape, self.input_size
        facts: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "method": self.method, **self.metadata}
        if self.with_map:
            facts["map"] = {"height": height, "width": width, "value_range": [0.0, 1.0], "order": "rows from the top",
                            "reduction": "area average of the map at input resolution"}  # fmt: skip
        if self.with_png:
            facts["map_png"] = {"height": input_height, "width": input_width, "value_range": [0, 255]}
        if self.method_columns:
            facts[METHOD_KEY] = {
                one.name: {"shape": list(one.shape), "meaning": one.meaning} for one in self.method_columns
            }
        if self.extra:
            facts[EXTRA_KEY] = dict(self.extra)
        found = {METADATA_KEY: json.dumps(facts, sort_keys=True).encode()}
        if self.with_png:  # what makes Hugging Face datasets decode the column
            found[b"huggingface"] = json.dumps({"info": {"features": {"map_png": {"_type": "Image"}}}}).encode()
        return found


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


def rows_to_table(rows: Sequence[Row], layout: StoreLayout) -> pa.Table:
    """The rows as a table of `layout.schema()`.

    A row whose status is not `ok` has no map and no metrics. Numbers that are not finite are stored as null, because one NaN
    would poison every mean over its column.

    Raises:
        ValueError: If a map does not have the layout's input size.
    """
    schema = layout.schema()
    maps = [_checked_map(row, layout) for row in rows]
    columns = {name: _plain_column(name, rows, layout) for name, _ in (*_BEFORE_MAPS, *_AFTER_METRICS)}
    for name in layout.metrics:
        columns[name] = [_finite(row.metrics.get(name)) if row.status == OK else None for row in rows]
    arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    for column in layout.method_columns:
        arrays[column.name] = _method_column(column, rows)
    for place, (name, kind) in enumerate(layout.extra):
        arrays[name] = pa.array([_extra_value(row, place, name) for row in rows], EXTRA_TYPES[kind])
    if layout.floors:
        arrays["floors"] = pa.array([_floors_value(row, layout) for row in rows], layout.floors_type)
    if layout.with_map:
        arrays["map"] = _map_column(maps, layout.map_shape)
    if layout.with_png:
        arrays["map_png"] = pa.array([_png_value(one) for one in maps], _PNG_TYPE)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _plain_column(name: str, rows: Sequence[Row], layout: StoreLayout) -> list[Any]:
    match name:
        case "id" | "uri" | "label":
            return [getattr(row.sample, name) for row in rows]
        case "method":
            return [layout.method] * len(rows)
        case "mask_counts":
            return [list(row.mask_counts) for row in rows]
        case "n_masks":
            return [sum(row.mask_counts) for row in rows]
        case "error":  # texts of the operating system may hold file names that are not UTF-8
            return [None if row.error is None else row.error.encode("utf-8", "replace").decode() for row in rows]
        case "score" | "logit" | "surrogate_error":
            return [_finite(getattr(row, name)) for row in rows]
        case _:
            return [getattr(row, name) for row in rows]


def _method_column(column: MethodColumn, rows: Sequence[Row]) -> pa.Array:
    """Null where a row has no map, and where the one number is not finite."""
    values = [row.extras.get(column.name) if row.status == OK else None for row in rows]
    for row, value in zip(rows, values, strict=True):
        if value is not None and value.shape != column.shape:
            raise ValueError(f"{column.name} of {row.sample.id!r} is {value.shape}, the layout says {column.shape}")
    if not column.shape:
        return pa.array([_finite(None if value is None else float(value)) for value in values], column.type)
    flat = np.zeros((len(rows), math.prod(column.shape)), dtype=np.float16)
    for place, value in enumerate(values):
        if value is not None:
            flat[place] = value.ravel()
    missing = pa.array([value is None for value in values], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1], mask=missing)


def _extra_value(row: Row, place: int, name: str) -> Any:
    """Every sample of a run carries all extra columns in the layout's order."""
    given, value = row.sample.extra[place]
    if given != name:
        raise ValueError(f"the sample {row.sample.id!r} has {given!r} where the layout has {name!r}")
    return value


def _floors_value(row: Row, layout: StoreLayout) -> dict[str, dict[str, float | None]] | None:
    if row.floors is None or row.status != OK:
        return None
    return {floor: {name: _finite(values.get(name)) for name in layout.floors} for floor, values in row.floors.items()}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _checked_map(row: Row, layout: StoreLayout) -> np.ndarray | None:
    if row.status != OK or row.map is None:
        return None
    if row.map.shape != layout.input_size:
        raise ValueError(f"the map of {row.sample.id!r} is {row.map.shape}, the layout says {layout.input_size}")
    return row.map


def _map_column(maps: Sequence[np.ndarray | None], shape: tuple[int, int]) -> pa.Array:
    flat = np.zeros((len(maps), math.prod(shape)), dtype=np.float16)
    for place, one in enumerate(maps):
        if one is not None:
            flat[place] = area_average(one, shape).ravel()
    missing = pa.array([one is None for one in maps], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), math.prod(shape), mask=missing)


def area_average(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Reduce `values` (height, width) to `shape`; each result is the mean over the exact, fractional area it covers.

    Returns:
        float64, in the range of `values`.
    """
    rows, columns = (area_weights(size, fewer) for size, fewer in zip(values.shape, shape, strict=True))
    reduced = rows @ values.astype(np.float64) @ columns.T
    return reduced.clip(values.min(), values.max())  # rounding must not leave the range


def area_weights(size: int, reduced: int) -> np.ndarray:
    """`(reduced, size)`: the share of each old pixel in each new one; rows sum to 1."""
    edges = np.arange(reduced + 1) * size / reduced
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return overlap.clip(0, None) * reduced / size


def _png_value(one: np.ndarray | None) -> dict[str, Any] | None:
    if one is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(np.rint(one.clip(0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def table_to_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file: zstd, plain maps (DuckDB refuses BYTE_STREAM_SPLIT on float16), row groups of a few MB."""
    return tables_to_parquet([table], table.schema)


def tables_to_parquet(tables: Iterable[pa.Table], schema: pa.Schema) -> bytes:
    """As `table_to_parquet`, of several tables behind each other; row groups do not end where a table ends."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer, schema, compression="zstd", use_byte_stream_split=False, write_page_checksum=True, write_page_index=True,
        use_dictionary=["method", "status", "device"],  # pyright: ignore[reportArgumentType]  (a list is documented)
    ) as writer:  # fmt: skip
        held = schema.empty_table()
        for table in tables:
            held = pa.concat_tables([held, table.replace_schema_metadata(schema.metadata)])
            per_group = max(1, ROW_GROUP_BYTES * len(held) // max(1, held.nbytes))
            whole = len(held) // per_group * per_group
            if whole:
                writer.write_table(held.slice(0, whole), row_group_size=per_group)
                held = held.slice(whole)
        if len(held):
            writer.write_table(held)
    return buffer.getvalue()
