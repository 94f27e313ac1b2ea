"""`heatlas curate`: write ranked review queues."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ...errors import UsageError
from ..text import harmless


def curate_command(
    out: Annotated[str | None, Parameter(help="Directory or URI of a run's store.")] = None,
    /,
    *,
    to: Annotated[
        str | None,
        Parameter(name="--out", help="File for all queues together (.parquet, .csv, .jsonl), instead of one each in OUT/curation."),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        Parameter(help="Recipes: packaged ones by name, own ones by path of a .sql file. All packaged ones by default.",
                  consume_multiple=True, negative=""),
    ] = None,
    limit: Annotated[int, Parameter(help="Most rows of each queue, at least 1.")] = 1000,
    param: Annotated[
        list[str] | None,
        Parameter(help="Change a recipe's parameter: NAME=NUMBER or RECIPE.NAME=NUMBER.", consume_multiple=True, negative=""),
    ] = None,
    file_format: Annotated[
        Literal["parquet", "csv", "jsonl"] | None,
        Parameter(name="--format", help="Format of the queue; by default what --out ends in, or Parquet."),
    ] = None,
    list_: Annotated[
        bool, Parameter(name="--list", help="List the packaged recipes with their parameters and exit.", negative="")
    ] = False,
) -> int:  # fmt: skip
    """Write ranked review queues with reasons: shortcuts, suspected wrong labels, outliers, unstable maps, near duplicates."""
    from ..curate.curate import curate_store, curation_text, recipe_list

    if list_:
        print(recipe_list())
        return 0
    if out is None:
        raise UsageError(
            "curate needs the directory or URI of a run's store; `heatlas curate --list` lists the recipes"
        )
    written = curate_store(out, recipes=recipe, to=to, limit=limit, params=param or (), file_format=file_format)
    print(harmless(curation_text(written)))
    return 0
