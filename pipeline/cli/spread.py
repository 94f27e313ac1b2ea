"""`heatlas spread`: decisions about a few images become probabilities and masks for all."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json, Store


def spread_command(
    store: Store,
    /,
    *,
    classes: Annotated[list[str] | None, Parameter(name="--class", help="Only these classes, by name or number.")] = None,
    method: Annotated[str | None, Parameter(help="Method whose maps weigh the features; default: the most frequent.")] = None,
    neighbours: Annotated[int, Parameter(help="Neighbours in the graph that decisions spread on.")] = 15,
    seed: Annotated[int, Parameter(help="Seed of folds and samples.")] = 0,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Spread shortcut, core and ok decisions to all images of a class: a probability each, and a mask for those that carry the mark.

    Example: `heatlas spread maps/ --class octagon`
    """
    from ..spread.spread import spread_decisions

    spread = spread_decisions(store, classes=classes, method=method, neighbours=neighbours, seed=seed)
    if as_json:
        print(
            json.dumps(
                {
                    "rows": spread.rows.to_pylist(),
                    "texts": spread.texts,
                    "skipped": dict(spread.skipped),
                    "uri": spread.uri,
                },
                indent=2,
            )
        )
    else:
        print(harmless(spread.text()))
    return 0
