"""`heatlas metrics` and `heatlas summary`: what the numbers mean, and what they come to."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .status import Out


def metrics_command(
    *,
    names: Annotated[bool, Parameter(help="Print the names only, one a line.", negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of a table.", negative="")] = False,
) -> int:
    """List every metric: definition id, unit, range, direction, what it needs and costs, and the presets that hold it."""
    from .metric_table import format_metric_table, metric_records

    records = metric_records()
    if as_json:
        print(json.dumps([one["name"] for one in records] if names else records, indent=2))
    else:
        print("\n".join(one["name"] for one in records) if names else format_metric_table(records))
    return 0


def summary_command(
    out: Out,
    /,
    *,
    by: Annotated[
        str | None,
        Parameter(
            help="Split by class (the data set's label), prediction or status.", metavar="class|prediction|status"
        ),
    ] = None,
    resamples: Annotated[int, Parameter(help="Resamples of the bootstrap intervals.")] = 1000,
    seed: Annotated[int, Parameter(help="Seed of the resamples.")] = 0,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of a table.", negative="")] = False,
) -> int:
    """Show the mean of every metric with its 95 % interval, per run or per class, floors beside them. Reads no maps."""
    from ..atlas import open_atlas
    from ..statistics.summary_text import format_summary

    atlas = open_atlas(out)
    table = atlas.summary(by, resamples=resamples, seed=seed)
    if as_json:
        print(json.dumps(table.to_pylist(), indent=2))
    else:
        print(harmless(format_summary(out, atlas.statuses(), table, resamples=resamples, seed=seed)))
    return 0
