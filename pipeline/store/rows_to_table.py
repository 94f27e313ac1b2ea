"""Rows of a worker as an Arrow table of the store's schema."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ...statuses import OK
from ...workers.samples import Row
from .schema import _AFTER_METRICS, _BEFORE_MAPS, _PNG_TYPE, _WHOLE_IMAGE, EXTRA_TYPES, MethodColumn, StoreLayout


def build_table(rows: Sequence[Row], layout: StoreLayout) -> pa.Table:
    """The rows as a table of `layout.schema()`.

    A row whose status is not `ok` has no map and no metrics. Numbers that are not finite are stored as null, because one NaN
    would poison every mean over its column.

    Raises:
        ValueError: If a map does not have the layout's input size.
    """
    schema = layout.schema()
    maps = [_checked_map(row, layout) for row in rows]
    columns = {name: _plain_column(name, rows, layout) for name, _ in (*_BEFORE_MAPS, *_WHOLE_IMAGE, *_AFTER_METRICS)}
    for name in layout.metrics:
        columns[name] = [_finite(row.metrics.get(name)) if row.status == OK else None for row in rows]
    arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    for column in layout.method_columns:
        arrays[column.name] = _method_column(column, rows)
    for place, (name, kind) in enumerate(layout.extra):
        arrays[name] = pa.array([_extra_value(row, place, name) for row in rows], EXTRA_TYPES[kind])
    if layout.chance_metrics:
        arrays["floors"] = pa.array([_chance_value(row, layout) for row in rows], layout.chance_type)
    if layout.feature_width:
        arrays["features"] = _features_column(rows, layout.feature_width)
    if layout.with_map:
        arrays["map"] = _map_column(maps, layout.map_shape)
    if layout.with_png:
        arrays["map_png"] = pa.array(list(map(_png_value, rows, maps)), _PNG_TYPE)
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
        case "label_name":
            return [_class_name(row.sample.label, layout) for row in rows]
        case "prediction_name":
            return [_class_name(row.prediction, layout) for row in rows]
        case "top_k":
            return [_top_value(row, layout) for row in rows]
        case "box":
            return [
                None if row.box is None else dict(zip(("x0", "y0", "x1", "y1"), row.box, strict=True)) for row in rows
            ]
        case "confidence" | "logit" | "surrogate_error" | "label_confidence":
            return [_finite(getattr(row, name)) for row in rows]
        case _:
            return [getattr(row, name) for row in rows]


def _class_name(index: int | None, layout: StoreLayout) -> str | None:
    names = layout.metadata.get("class_names") or ()
    return names[index] if index is not None and 0 <= index < len(names) else None


def _top_value(row: Row, layout: StoreLayout) -> list[dict[str, Any]] | None:
    """Null where the model was not asked, or gave nothing finite."""
    listed = [
        {"index": index, "name": _class_name(index, layout), "confidence": _finite(value)} for index, value in row.top
    ]
    return listed or None


def _features_column(rows: Sequence[Row], width: int) -> pa.Array:
    """Null where there are none, or one does not fit into float16."""
    flat, missing = np.zeros((len(rows), width), dtype=np.float16), []
    for place, row in enumerate(rows):
        if row.features is not None and row.features.shape != (width,):
            raise ValueError(f"the features of {row.sample.id!r} are {row.features.shape}, the layout says {(width,)}")
        with np.errstate(over="ignore"):
            values = None if row.features is None else row.features.astype(np.float16)
        fits = values is not None and bool(np.isfinite(values).all())
        missing.append(not fits)
        if fits:
            flat[place] = values
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), width, mask=pa.array(missing, pa.bool_()))


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


def _chance_value(row: Row, layout: StoreLayout) -> dict[str, dict[str, float | None]] | None:
    if row.chance is None or row.status != OK:
        return None
    return {
        chance_map: {name: _finite(values.get(name)) for name in layout.chance_metrics}
        for chance_map, values in row.chance.items()
    }


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
    for place, values in enumerate(maps):
        if values is not None:
            flat[place] = area_average(values, shape).ravel()
    missing = pa.array([values is None for values in maps], pa.bool_())
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


def _png_value(row: Row, values: np.ndarray | None) -> dict[str, Any] | None:
    return None if values is None else {"bytes": row.png or png_bytes(values), "path": None}


def png_bytes(values: np.ndarray) -> bytes:
    """A map `(height, width)` in [0, 1] as an 8-bit grey PNG. Other threads go on meanwhile."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
