"""Read what each method's store says of the same images: one value per image and column, chance baselines subtracted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from ...engine.methods.registry import find_method
from ...errors import HeatlasError, UsageError, did_you_mean
from ...statuses import OK
from ..statistics.metric_summary import chance_columns
from ..statistics.one_row_per_image import image_rows
from ..store.reader import StoreReader
from ..store.schema import metric_columns

BACKWARD_PASSES = 2
"""Forward passes that a backward pass counts as."""


@dataclass(frozen=True)
class ChoiceColumn:
    """One thing by which methods are ranked; larger is better."""

    name: str
    metrics: tuple[str, ...]
    """Columns of the store that it is made from."""
    value: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    """From the metrics of an image."""
    meaning: str
    chance_map: str | None = None
    """Whose value on the same images is subtracted, where the store has it."""


COLUMNS = {
    column.name: column
    for column in (
        ChoiceColumn("plausibility", ("ebpg",), lambda row: row["ebpg"], "share of the map on the marked object, less that of a centred Gaussian", "gaussian"),
        ChoiceColumn("faithfulness", ("insertion_auc", "deletion_auc"), lambda row: row["insertion_auc"] - row["deletion_auc"],
                     "insertion less deletion, less that of a random map", "random"),
        ChoiceColumn("stability", ("max_sensitivity",), lambda row: -row["max_sensitivity"], "how little the map changes with a little noise"),
        ChoiceColumn("retention", ("drop_pct",), lambda row: -row["drop_pct"] / 100, "confidence that the strongest pixels keep, less that of a random map", "random"),
    )
}  # fmt: skip
DEFAULT = ("plausibility", "faithfulness", "stability")


@dataclass(frozen=True, eq=False)
class MethodValues:
    """One method's values over the images that all methods explained."""

    method: str
    uri: str
    passes: float
    """Forward passes an image, those of the metrics included, mean; a backward pass counts twice."""
    own_passes: float | None
    """The same of the method alone; None where it cannot be told from what is stored."""
    failed: int
    """Images that it has no map of."""
    values: Float[np.ndarray, "column image"]
    """NaN where there is none."""
    chance: Float[np.ndarray, " column"]
    """Mean of the chance map that was subtracted; NaN where none was measured, and nothing was subtracted."""


def choice_columns(atlases: Sequence[StoreReader], asked: Sequence[str] | None) -> list[ChoiceColumn]:
    """The columns by which these stores can be ranked.

    Raises:
        UsageError: For an unknown column, one that a store lacks, or where none is left.
    """
    for name in asked or ():
        if name not in COLUMNS:
            raise UsageError(f"unknown column {name!r}{did_you_mean(name, COLUMNS)}; choose {', '.join(COLUMNS)}")
    columns = []
    for name in asked or DEFAULT:
        lacking = [
            f"{metric} in {atlas.uri}"
            for atlas in atlases
            for metric in COLUMNS[name].metrics
            if metric not in metric_columns(atlas.schema)
        ]
        if not lacking:
            columns.append(COLUMNS[name])
        elif asked:
            raise UsageError(f"the column {name} needs {lacking[0]}; `heatlas evaluate` adds metrics to a store")
    if not columns:
        needed = "; ".join(f"{name}: {', '.join(COLUMNS[name].metrics)}" for name in DEFAULT)
        raise UsageError(f"the stores have no common metrics to rank by, which are {needed}")
    return columns


def read_values(
    atlases: Sequence[StoreReader], columns: Sequence[ChoiceColumn]
) -> tuple[list[MethodValues], list[str]]:
    """The values of every store, and the ids of the images that all of them explained, sorted.

    Raises:
        UsageError: If fewer than two images are common to them.
    """
    tables = [_rows(atlas, columns) for atlas in atlases]
    explained = [{row["id"] for row in table if row["status"] == OK} for table in tables]
    ids = sorted(set.intersection(*explained))
    if len(ids) < 2:
        raise UsageError(
            f"the stores have {len(ids)} images in common that all of them explained; methods are ranked on the same images"
        )
    return [_values(atlas, table, ids, columns) for atlas, table in zip(atlases, tables, strict=True)], ids


def _rows(atlas: StoreReader, columns: Sequence[ChoiceColumn]) -> list[dict]:
    metrics = list(dict.fromkeys(metric for column in columns for metric in column.metrics))
    measured = chance_columns(atlas.schema)
    chance = [
        f'floors."{column.chance_map}"."{metric}" AS "{column.chance_map}:{metric}"'
        for column in columns
        if column.chance_map and set(column.metrics) <= set(measured)
        for metric in column.metrics
    ]
    listed = ", ".join(
        [
            "id",
            "method",
            "status",
            "n_forwards",
            "n_backwards",
            "n_masks",
            *(f'"{metric}"' for metric in metrics),
            *chance,
        ]
    )
    return atlas.query_table(f"SELECT {listed} FROM {image_rows(atlas)} ORDER BY id").to_pylist()


def _values(atlas: StoreReader, table: list[dict], ids: list[str], columns: Sequence[ChoiceColumn]) -> MethodValues:
    methods = sorted({row["method"] for row in table})
    if len(methods) != 1:
        raise UsageError(f"{atlas.uri} has rows of {', '.join(methods)}; a store to choose from has one method")
    by_id = {row["id"]: row for row in table}
    rows = [by_id[identity] for identity in ids]
    values, chance = np.full((len(columns), len(ids)), np.nan), np.full(len(columns), np.nan)
    for place, column in enumerate(columns):
        values[place] = column.value({metric: _numbers(rows, metric) for metric in column.metrics})
        if column.chance_map and f"{column.chance_map}:{column.metrics[0]}" in rows[0]:
            measured = column.value(
                {metric: _numbers(rows, f"{column.chance_map}:{metric}") for metric in column.metrics}
            )
            if not np.isnan(measured).all():
                chance[place] = np.nanmean(measured)
                values[place] -= chance[place]
    passes = np.mean([(row["n_forwards"] or 0) + BACKWARD_PASSES * (row["n_backwards"] or 0) for row in rows])
    failed = sum(row["status"] != OK for row in table)
    return MethodValues(
        methods[0], atlas.uri, float(passes), own_passes(atlas, methods[0], rows), failed, values, chance
    )


def own_passes(atlas: StoreReader, method: str, rows: Sequence[Mapping]) -> float | None:
    """Forward passes an image by the method itself, a backward pass counted twice: as it declares them, or as many as it kept masks."""
    settings = atlas.run["settings"].get(method)
    if not isinstance(settings, Mapping) or atlas.run["settings"].get("budget", "exact") != "exact":
        return None
    try:
        stored = find_method(method)
    except HeatlasError:  # of a package that is not here any more
        return None
    names = {field.name for field in fields(stored.settings)}
    known = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items() if name in names
    }
    try:
        cost = stored.cost(stored.settings(**known))
    except (HeatlasError, TypeError):
        return None
    if cost is not None:
        return float(cost.forwards + BACKWARD_PASSES * cost.backwards)
    masks = [row["n_masks"] for row in rows if row["n_masks"]]
    return float(np.mean(masks) + 1 + BACKWARD_PASSES * stored.gradients) if masks else None


def _numbers(rows: Sequence[Mapping], name: str) -> np.ndarray:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
