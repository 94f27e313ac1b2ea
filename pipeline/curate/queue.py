"""Run recipes over a store and check that each result has the columns of a queue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from ...engine.methods.protocol import METHODS
from ...engine.methods.registry import built_in
from ...errors import UsageError
from ..features.cue_table import cues_of
from ..features.image_table import features_of
from ..settings.imported_runs import IMPORTED
from ..store.require_full_maps import refuse_reduced_maps
from ..store.sql import quoted
from ..text import counted, sql_refusal
from .feature_tables import NEED_FEATURES, read_confidences
from .recipe import Recipe, load_recipes, split_params
from .tables import recipe_tables

if TYPE_CHECKING:
    import duckdb

    from ..store.reader import StoreReader

MUST = ("id", "target", "reason", "priority")
FIRST = (("id", pa.string()), ("target", pa.int32()), ("method", pa.string()), ("recipe", pa.string()), ("rank", pa.int64()),
         ("priority", pa.float64()), ("reason", pa.string()))  # fmt: skip
LIMIT = 1000
METADATA_KEY = b"heatlas_curation"
_NAMED = 5


@dataclass(frozen=True)
class Curation:
    """The queues of one run of the recipes."""

    queues: Mapping[str, pa.Table]
    """By recipe, the most urgent first: the columns `FIRST`, then the recipe's evidence."""
    found: Mapping[str, int]
    """By recipe, the number of rows found; the queue holds the first of them."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why a recipe did not run, and what to do about it."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """By recipe, of what it cannot tell."""

    def table(self) -> pa.Table:
        """All queues as one table, recipe after recipe; evidence that a recipe does not have is null.

        Raises:
            UsageError: If two recipes give one name to evidence of different kinds.
        """
        facts = {METADATA_KEY: json.dumps({"found": dict(self.found), "skipped": dict(self.skipped)}).encode()}
        try:
            joined = pa.concat_tables(
                [pa.schema(FIRST).empty_table(), *self.queues.values()], promote_options="permissive"
            )
        except pa.ArrowException as error:
            raise UsageError(f"two recipes give one column different types: {error}; name the columns differently, or leave --out "
                             "out, which writes a file for each recipe") from None  # fmt: skip
        return joined.replace_schema_metadata(facts)


def run_recipes(
    atlas: StoreReader,
    names: Sequence[str] | None = None,
    *,
    limit: int = LIMIT,
    params: Sequence[str] = (),
    probs: str | None = None,
) -> Curation:
    """Run recipes over a store.

    Args:
        atlas: The store.
        names: Packaged recipes by name and own ones by path; None for all packaged ones.
        limit: Most rows of each queue.
        params: `NAME=NUMBER` or `RECIPE.NAME=NUMBER`.
        probs: File with the user's own confidences, for the quality of labels; see `read_confidences`.

    Returns:
        The queues; equal for equal stores and recipes, whatever the machine, ties in order of id.

    Raises:
        UsageError: For unknown recipes or parameters, SQL that is refused, or if none of the recipes can run on this store.
        StorageError: If a part cannot be read.
    """
    if limit < 1:
        raise UsageError(f"limit must be at least 1, got {limit}")
    if isinstance(names, str):
        names = [names]
    recipes = split_params(params, load_recipes(names))
    if not recipes:
        raise UsageError("no recipe is asked for; leave the recipes out to run all, or see `heatlas curate --list`")
    skipped = {recipe.name: why for recipe in recipes if (why := why_not(atlas, recipe))}
    able = [recipe for recipe in recipes if recipe.name not in skipped]
    if not able:
        raise UsageError(
            "none of the recipes can run here:\n" + "\n".join(f"  {name}: {why}" for name, why in skipped.items())
        )
    confidences = None if probs is None else read_confidences(probs, atlas.class_names)
    with recipe_tables(atlas, able, confidences) as database:
        findings = {recipe.name: _run(database, recipe, limit) for recipe in able}
        note = _label_note(database)
    return Curation(
        {name: table for name, (table, _) in findings.items()},
        {name: all_ for name, (_, all_) in findings.items()},
        skipped,
        {recipe.name: note for recipe in able if note and "label_quality" in recipe.words},
    )


def _label_note(database: duckdb.DuckDBPyConnection) -> str | None:
    """Classes whose labels cannot be judged, and images that were judged by the model alone; None where there is nothing to say."""
    tables = {name for (name,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "label_quality" not in tables:
        return None
    unseen = database.execute(
        "SELECT label_name, count(DISTINCT id) AS images FROM label_quality JOIN atlas USING (id) WHERE NOT class_seen "
        "GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    [(judged, labelled)] = database.execute(
        "SELECT (SELECT count(*) FROM label_quality), (SELECT count(DISTINCT id) FROM atlas WHERE status = 'ok' AND label IS NOT NULL)"
    ).fetchall()
    notes = []
    if unseen:
        named = ", ".join(f"{name} ({counted(images, 'image')})" for name, images in unseen[:_NAMED])
        more = f" and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else ""
        notes.append(f"cannot tell of labels that the model seldom agrees with: {named}{more}")
    if 0 < judged < labelled:
        notes.append(
            f"{judged:,} of {labelled:,} labelled images have features or confidences, the others are judged by the model alone"
        )
    return "; ".join(notes) or None


def why_not(atlas: StoreReader, recipe: Recipe) -> str | None:
    """The columns that a store lacks for a recipe, with the command that adds them; None if it lacks none."""
    by_cues = any("cues" in group for group in recipe.needs) and cues_of(atlas) is not None
    if not by_cues and (missing := recipe.missing(atlas.schema.names)):
        return f"needs {' and '.join(' or '.join(name for name in group if name != 'cues') for group in missing)}; {_remedy(atlas, [group[0] for group in missing])}"
    if not by_cues and (empty := _without_values(atlas, recipe)):
        return f"cannot tell without {' or '.join(empty)}, which {'has' if len(empty) == 1 else 'have'} no value in any row"
    if needed := recipe.words & NEED_FEATURES:
        features = features_of(atlas)
        if features is None or ("image_duplicates" in needed and not len(features.hashes)):
            lacking = "features" if features is None else "perceptual hashes of the images"
            return f"cannot tell without {lacking}; compute them with `heatlas curate {atlas.uri} --probe`"
    if recipe.words & {"maps", "twins"} and "map" not in atlas.schema.names:
        return "needs the maps as numbers; explain the data anew with --store.map, into another --out"
    return None


def _without_values(atlas: StoreReader, recipe: Recipe) -> tuple[str, ...]:
    """A group of needed columns that are null in every row, so that an empty queue would be a false all-clear."""
    for group in recipe.needs:
        there = [name for name in group if name in atlas.schema.names]
        if not any(atlas.count(f"{quoted(name)} IS NOT NULL") for name in there):
            return tuple(name for name in group if name != "cues")
    return ()


def _remedy(atlas: StoreReader, metrics: Sequence[str]) -> str:
    if method := next((name for name in built_in() if metrics[0] in METHODS[name].extras), None):
        trained = f", after `heatlas train {method}`" if METHODS[method].trained else ""
        return f"explain with --method {method}{trained}"
    if IMPORTED in atlas.run["settings"]:
        from ...engine.metrics import METRICS  # here, because most queues need no torch

        if more := [name for name in metrics if name in METRICS and METRICS[name].explains]:
            return f"the maps of this store are imported, and {' and '.join(more)} would need the method that made them to explain changed images"
    try:
        refuse_reduced_maps(atlas.uri, atlas.run)
    except (UsageError, KeyError):
        return f"this store's maps are reduced, so explain the data anew with --metrics ... {' '.join(metrics)}, into another --out"
    return f"add it with `heatlas evaluate {atlas.uri} --metrics {' '.join(metrics)}`"


def _run(database: duckdb.DuckDBPyConnection, recipe: Recipe, limit: int) -> tuple[pa.Table, int]:
    """The first rows of a recipe's findings, and how many there are."""
    import duckdb

    try:
        used = _checked(database, recipe)
        names = _result_names(database, recipe, used)
        method = "CAST(method AS VARCHAR)" if "method" in names else "NULL::VARCHAR"
        evidence = "".join(f", {quoted(name)}" for name in names if name not in (*MUST, "method", "recipe", "rank"))
        order = "priority DESC NULLS LAST, id, target, method"
        # the text is one SELECT, which DuckDB itself has said
        rows = database.sql(
            f"WITH found AS MATERIALIZED (\n{recipe.query.rstrip().rstrip(';')}\n), queue AS (SELECT CAST(id AS VARCHAR) AS id, "
            f"CAST(target AS INTEGER) AS target, {method} AS method, CAST(priority AS DOUBLE) AS priority, "
            f"CAST(reason AS VARCHAR) AS reason{evidence}, count(*) OVER () AS heatlas_all FROM found) "
            f"SELECT * FROM queue ORDER BY {order} LIMIT {limit:d}",
            params=used,
        ).to_arrow_table()
    except duckdb.Error as error:
        raise UsageError(f"DuckDB refuses the recipe {recipe.name}: {sql_refusal(error)}") from None
    total = rows["heatlas_all"][0].as_py() if len(rows) else 0
    rows = rows.drop_columns(["heatlas_all"])
    rows = rows.append_column("recipe", pa.array([recipe.name] * len(rows), pa.string()))
    rows = rows.append_column("rank", pa.array(range(1, len(rows) + 1), pa.int64()))
    first = [name for name, _ in FIRST]
    rows = rows.select([*first, *(name for name in rows.column_names if name not in first)])
    return rows.cast(pa.schema([*FIRST, *(field for field in rows.schema if field.name not in first)])), total


def _checked(database: duckdb.DuckDBPyConnection, recipe: Recipe) -> dict[str, float]:
    """The parameters that the query uses, after a check that it is one SELECT."""
    import duckdb

    statements = database.extract_statements(recipe.query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UsageError(f"the recipe {recipe.name} must be one SELECT, it has {len(statements)} statements"
                         if len(statements) != 1 else f"the recipe {recipe.name} must be one SELECT")  # fmt: skip
    used = sorted(statements[0].named_parameters)
    if unknown := [name for name in used if name not in recipe.params]:
        raise UsageError(f"the recipe {recipe.name} uses ${unknown[0]}, which its head does not set; "
                         f"write `-- param {unknown[0]} = NUMBER  meaning`")  # fmt: skip
    return {name: recipe.params[name] for name in used}


def _result_names(database: duckdb.DuckDBPyConnection, recipe: Recipe, used: Mapping[str, float]) -> list[str]:
    query = f"SELECT * FROM (\n{recipe.query.rstrip().rstrip(';')}\n) LIMIT 0"
    names = [column[0] for column in database.execute(query, dict(used)).description or ()]
    if lacking := [name for name in MUST if name not in names]:
        raise UsageError(f"the recipe {recipe.name} gives {', '.join(names)}, but no {' and no '.join(lacking)}; "
                         "a queue needs id, target, reason and priority")  # fmt: skip
    return names
