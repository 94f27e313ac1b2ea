"""`heatlas metrics`: what the numbers mean."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from .arguments import Json


def metrics_command(
    *,
    names: Annotated[bool, Parameter(help="Print the names only, one per line.")] = False,
    as_json: Json = False,
) -> int:
    """List every metric: definition id, unit, range, direction, what it needs and costs, and the presets that hold it.

    Example: `heatlas metrics`
    """
    from .metric_table import format_metric_table, metric_records

    records = metric_records()
    if as_json:
        print(json.dumps([record["name"] for record in records] if names else records, indent=2))
    else:
        print("\n".join(record["name"] for record in records) if names else format_metric_table(records))
    return 0
