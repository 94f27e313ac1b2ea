"""Build the sandboxed DuckDB database in which recipes run: tables in memory, no files, no network, no settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..statistics.metric_summary import chance_columns
from ..store.object_rows import OBJECT, one_object
from ..store.sql import LOCK, quoted
from .feature_tables import SCHEMAS, make_feature_tables
from .low_resolution_maps import KEYS, LowMaps, low_maps
from .near_duplicate_maps import find_twins
from .recipe import Recipe

if TYPE_CHECKING:
    import duckdb

    from ..store.reader import StoreReader

SIDE = 8
"""Longer side of the maps that `maps` and `twins` compare, in pixels."""
ALWAYS = ("id", "target", "method", "label", "prediction", "confidence", "status", "error")
NEVER = frozenset({"map", "map_png", "floors", "features", "top_k", "label_name", "prediction_name", "box"})
"""Columns that are not copied: too large, or not plain values."""


def recipe_tables(
    atlas: StoreReader, recipes: Sequence[Recipe], confidences: tuple[list[str], np.ndarray] | None = None
) -> duckdb.DuckDBPyConnection:
    """A database with the columns and tables that the recipes name, and nothing else.

    `atlas`: the rows with those columns that a recipe names (all plain ones where it says `*`), and `label_name`,
    `prediction_name`, `target_name`; of several objects of a class in an image only the largest, unless a recipe names `object_id`; `ebpg_chance` (EBPG of a random map, where it was measured). `classes(index, name)`. `maps(id, target, method, distance)`: how far each map is from the mean
    map of its target. `twins(id, target, method, twin, twin_target, distance, alike)`: a map that looks the same.
    `run(confidence)`: softmax, sigmoid or segmentation. The tables of `feature_tables.SCHEMAS`. Those of maps and features only where
    a recipe names them.

    Raises:
        UsageError: If maps are needed that the run did not store.
        StorageError: If a part cannot be read.
    """
    import duckdb  # here, because `heatlas --help` should not wait for it

    connection = duckdb.connect()
    words = frozenset().union(*(recipe.words for recipe in recipes))
    classes = pa.table({"index": pa.array(range(len(atlas.class_names)), pa.int32()),
                        "name": pa.array(atlas.class_names, pa.string())})  # fmt: skip
    _copy(connection, "classes", classes)
    selected = [quoted(name) for name in _columns(atlas, recipes)]
    chance = ("ebpg_chance",) if "ebpg_chance" in words and "ebpg" in chance_columns(atlas.schema) else ()
    selected += ["floors.random.ebpg AS ebpg_chance" for _ in chance]
    shown = "true" if OBJECT in words else one_object(atlas.schema)
    query = f"SELECT {', '.join(selected)} FROM atlas WHERE {shown}"
    _copy(connection, "heatlas_rows", atlas.query_table(query))
    there = {*atlas.schema.names, *chance, *SCHEMAS}
    absent = [name for recipe in recipes for name in recipe.optional if name not in there]
    extra = [f"NULL::DOUBLE AS {quoted(name)}" for name in dict.fromkeys(absent)]
    named = [
        f"coalesce((SELECT name FROM classes WHERE index = {column}), 'class ' || {column}) AS {column}_name"
        for column in ("label", "prediction", "target")
    ]
    connection.execute(f"CREATE TABLE atlas AS SELECT {', '.join(['*', *extra, *named])} FROM heatlas_rows")
    connection.execute("DROP TABLE heatlas_rows")
    stated = atlas.metadata.get("provenance", {}).get("settings", {})
    meaning = stated.get("confidence", stated.get("score", "softmax"))
    _copy(connection, "run", pa.table({"confidence": pa.array([meaning], pa.string())}))
    for name, table in make_feature_tables(atlas, words, confidences).items():
        _copy(connection, name, table)
    if words & {"maps", "twins"}:
        low = low_maps(atlas, SIDE)
        if "maps" in words:
            _copy(connection, "maps", distances(low))
        if "twins" in words:
            _copy(connection, "twins", twins(low))
    for statement in LOCK:
        connection.execute(statement)
    return connection


def distances(low: LowMaps) -> pa.Table:
    """Distance of each map to the mean map of its target and method: half the L1 distance of their masses, in [0, 1]."""
    mass = low.mass()
    groups = (
        low.rows.select(["target", "method"]).to_pandas().groupby(["target", "method"], sort=True).ngroup().to_numpy()
    )
    count = int(groups.max()) + 1 if len(groups) else 0
    distance = np.empty(len(mass))
    for group in range(count):
        members = np.flatnonzero(groups == group)
        own = mass[members]
        distance[members] = np.abs(own - own.mean(axis=0, dtype=np.float64)).sum(axis=1) / 2
    return low.rows.append_column("distance", pa.array(distance))


def twins(low: LowMaps) -> pa.Table:
    """Rows with a near-duplicate map of the same method: its id and target, the distance, and the number of such maps."""
    methods = low.rows["method"].to_numpy(zero_copy_only=False)
    mass, tables = low.mass(), []
    for method in sorted(set(methods)):
        places = np.flatnonzero(methods == method)
        pairs = find_twins(mass[places])
        rows, others = low.rows.take(pa.array(places[pairs.row])), low.rows.take(pa.array(places[pairs.twin]))
        columns = {"twin": others["id"], "twin_target": others["target"], "distance": pa.array(pairs.distance),
                   "alike": pa.array(pairs.alike.astype(np.int64))}  # fmt: skip
        for name, values in columns.items():
            rows = rows.append_column(name, values)
        tables.append(rows)
    own = [low.rows.schema.field(name) for name in KEYS]
    added = [("twin", pa.string()), ("twin_target", own[1].type), ("distance", pa.float64()), ("alike", pa.int64())]
    return pa.concat_tables([pa.schema([*own, *added]).empty_table(), *tables])


def _columns(atlas: StoreReader, recipes: Sequence[Recipe]) -> list[str]:
    """The store's plain columns that a recipe may read, in stored order."""
    plain = [name for name in atlas.schema.names if name not in NEVER]
    if any("*" in _selected(recipe) for recipe in recipes):
        return plain
    return [
        name
        for name in plain
        if name in ALWAYS or any(name in recipe.words or quoted(name) in recipe.query for recipe in recipes)
    ]


def _selected(recipe: Recipe) -> frozenset[str]:
    """The words of a recipe; a `*` counts only where a recipe declares no columns, so that it reads all."""
    return recipe.words if not recipe.optional else recipe.words - {"*"}


def _copy(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("heatlas_arrow", table)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM heatlas_arrow")
    connection.unregister("heatlas_arrow")
