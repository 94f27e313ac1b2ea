"""Metrics of maps that a store holds at a lower resolution: those that read the map alone, under names and definitions of their own.

`ebpg@map56` is EBPG of the stored map, whose longer side is 56, enlarged bilinearly to the network's input. It is near EBPG of the whole
map and not it, so the two never share a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...engine.metrics.evaluate import find_metric
from ...engine.metrics.protocol import Metric
from ..explain.fingerprint import metric_facts
from ..store.schema import StoreLayout

SEPARATOR = "@"


def low_resolution(run: Mapping[str, Any]) -> str | None:
    """How columns of metrics of this run's stored maps end, such as `map56`; None where its maps are whole, or it stored none."""
    height, width = run["fingerprint"]["preprocess"]["size"]
    store = run["settings"]["store"]
    shape = StoreLayout((height, width), map_size=store["map_size"]).map_shape
    return None if not store["map"] or shape == (height, width) else f"map{max(shape)}"


def reads_the_map_alone(metric: Metric) -> bool:
    """Whether a metric needs no forward pass: the map, and ground truth at most. Others rank every pixel of the whole map."""
    return not metric.probes and not metric.explains and not metric.layers


def column_of(name: str, resolution: str | None) -> str:
    """The column that holds a metric of maps of this resolution."""
    return name if resolution is None else f"{name}{SEPARATOR}{resolution}"


def metric_of(column: str) -> str:
    """The metric that a column holds, of whatever maps."""
    return column.partition(SEPARATOR)[0]


def definition_of(column: str) -> str:
    """The definition id of a column, such as `ebpg/v1` or `ebpg@map56/v1`."""
    return f"{column}/v{find_metric(metric_of(column)).version}"


def facts_of(column: str) -> dict[str, Any]:
    """What the metadata says of a column."""
    facts = metric_facts(metric_of(column))
    if SEPARATOR not in column:
        return facts
    side = column.partition(SEPARATOR)[2].removeprefix("map")
    formula = f"{facts['formula']} Of the map as stored, its longer side {side} pixels, enlarged bilinearly to the network's input."
    return {**facts, "definition": definition_of(column), "formula": formula}
