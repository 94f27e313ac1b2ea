"""A worked example of a command: `heatlas lowest STORE`, the images with the lowest values of a metric.

Inside heatlas this is a file in `pipeline/cli/` and an entry in `COMMANDS` of `pipeline/cli/app.py`. Arguments and flags are made from the
signature; the docstring is the help and ends in an example, which a test reads.
"""

from typing import Annotated

import heatlas
from cyclopts import Parameter
from heatlas.errors import SettingsError
from heatlas.pipeline.cli.app import COMMANDS
from heatlas.pipeline.cli.arguments import Store
from heatlas.pipeline.cli.command import Command
from heatlas.pipeline.text import harmless


def lowest_command(
    store: Store,
    /,
    *,
    metric: Annotated[str, Parameter(help="Metric to rank by.")] = "ebpg",
    limit: Annotated[int, Parameter(help="Images to list, at least 1.")] = 10,
) -> int:
    """List the images with the lowest values of a metric.

    Example: `heatlas lowest maps/ --metric ebpg --limit 5`
    """
    if limit < 1:
        raise SettingsError(f"--limit must be at least 1 image, got {limit}")
    atlas = heatlas.open(store)
    rows = atlas.table(["id", metric], where="status = 'ok'").drop_null().sort_by(metric).slice(0, limit)
    for row in rows.to_pylist():
        print(harmless(f"{row[metric]:10.4g}  {row['id']}", lines=False))
    return 0


COMMANDS["lowest"] = Command(lowest_command)
