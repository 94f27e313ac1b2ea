"""`heatlas verify`: a store checked against its plan."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json, Store


def verify_command(
    store: Store,
    /,
    *,
    delete_damaged: Annotated[
        bool, Parameter(help="Delete damaged part files, so that the run's own command recomputes them.")
    ] = False,
    data: Annotated[
        bool, Parameter(help="Compare the images with what was explained, too; read again where size or time differ.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Read a whole store and check it against its plan. Exit code 1 if anything is wrong.

    Example: `heatlas verify maps/`
    """
    from ..explain.changed_inputs import input_problems
    from ..store.verify import verify_run, verify_text

    check_inputs = (lambda run: input_problems(store, run)) if data else None
    report = verify_run(store, delete_damaged=delete_damaged, check_inputs=check_inputs)
    print(json.dumps(report.as_json(), indent=2) if as_json else harmless(verify_text(report)))
    return 0 if report.ok else 1
