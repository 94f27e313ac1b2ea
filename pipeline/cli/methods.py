"""`heatlas methods`: what there is to explain with."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json


def methods_command(
    name: Annotated[str | None, Parameter(help="Show this method with its options; default: a table of all.")] = None,
    /,
    *,
    names: Annotated[bool, Parameter(help="Print the names only, one per line.")] = False,
    as_json: Json = False,
) -> int:
    """List every explanation method: models it takes, passes it costs, what it needs, and what its map shows.

    Example: `heatlas methods rise`
    """
    from ...engine.methods.registry import entries

    if names:
        print(json.dumps(list(entries()), indent=2) if as_json else "\n".join(entries()))
        return 0
    from .method_table import method_record, method_records, method_text, print_method_table

    if name is not None:
        record = method_record(name)
        print(json.dumps(record, indent=2) if as_json else harmless(method_text(record)))
    elif as_json:
        print(json.dumps(method_records(), indent=2))
    else:
        print_method_table(method_records())
    return 0
