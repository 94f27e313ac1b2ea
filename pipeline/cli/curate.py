"""`heatlas curate`: ranked review queues from recipes."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ...errors import UsageError
from ..text import harmless


def curate_command(
    store: Annotated[str | None, Parameter(help="heatlas store: directory or URI.")] = None,
    /,
    *,
    out: Annotated[
        str | None,
        Parameter(help="One file for all queues (.parquet, .csv, .jsonl); default: one each in STORE/curation."),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        Parameter(help="Packaged recipes by name, own ones by path of a .sql file; default: all packaged ones."),
    ] = None,
    limit: Annotated[int, Parameter(help="Longest queue in rows, at least 1.")] = 1000,
    param: Annotated[
        list[str] | None,
        Parameter(help="Set a recipe's parameter.", metavar="[RECIPE.]NAME=NUMBER"),
    ] = None,
    file_format: Annotated[
        Literal["parquet", "csv", "jsonl"] | None,
        Parameter(name="--format", help="Format of the queues; default: the suffix of --out, or Parquet."),
    ] = None,
    probs: Annotated[
        str | None,
        Parameter(help="Your own confidences (.parquet, .csv: id and one column per class), to judge labels by."),
    ] = None,
    probe: Annotated[
        bool, Parameter(help="First load the run's model and compute its images' features into STORE/features.")
    ] = False,
    list_: Annotated[
        bool, Parameter(name="--list", help="List the packaged recipes and their parameters instead.")
    ] = False,
) -> int:
    """Write ranked review queues with reasons: shortcuts, suspected wrong labels, outliers, unstable maps, near duplicates.

    Example: `heatlas curate maps/ --recipe shortcut --limit 100`
    """
    from ..curate.curate import curate_store, curation_text, recipe_list

    if list_:
        print(recipe_list())
        return 0
    if store is None:
        raise UsageError(
            "curate needs the directory or URI of a heatlas store; `heatlas curate --list` lists the recipes"
        )
    written = curate_store(
        store,
        recipes=recipe,
        to=out,
        limit=limit,
        params=param or (),
        file_format=file_format,
        probs=probs,
        probe=probe,
    )
    print(harmless(curation_text(written)))
    return 0
