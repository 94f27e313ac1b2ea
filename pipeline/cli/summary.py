"""`heatlas summary`: the mean of every metric."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json, Resamples, ResampleSeed, Store


def summary_command(
    store: Store,
    /,
    *,
    by: Annotated[
        str | None,
        Parameter(help="Split by class (the data set's label), prediction or status.", metavar="class|prediction|status"),
    ] = None,
    resamples: Resamples = 1000,
    seed: ResampleSeed = 0,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Show the mean of every metric with its 95 % interval, per run or per class, beside its chance baselines. Reads no maps.

    Example: `heatlas summary maps/ --by class`
    """
    from ..atlas import open_atlas
    from ..statistics.summary_text import format_summary

    atlas = open_atlas(store)
    table = atlas.summary(by, resamples=resamples, seed=seed)
    if as_json:
        print(json.dumps(table.to_pylist(), indent=2))
    else:
        print(harmless(format_summary(store, atlas.statuses(), table, resamples=resamples, seed=seed)))
    return 0
