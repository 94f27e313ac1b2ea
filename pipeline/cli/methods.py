"""`heatlas methods`: what there is to explain with."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter


def methods_command(
    *,
    names: Annotated[bool, Parameter(help="Print the names only, one a line.", negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of a table.", negative="")] = False,
) -> int:
    """List every explanation method: models it takes, passes it costs, what it needs, and what its map shows."""
    from ...engine.methods.registry import entries

    if names:
        print(json.dumps(list(entries()), indent=2) if as_json else "\n".join(entries()))
        return 0
    from .method_table import method_records, print_method_table

    if as_json:
        print(json.dumps(method_records(), indent=2))
    else:
        print_method_table(method_records())
    return 0
