"""`heatlas components`: what a class's logit is made of, by name."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json, Store


def components_command(
    store: Store,
    /,
    *,
    classes: Annotated[list[str] | None, Parameter(name="--class", help="Only these classes, by name or number.")] = None,
    count: Annotated[int, Parameter(help="Components of a class.")] = 16,
    name: Annotated[
        list[str] | None, Parameter(help="Name a component; kept for later calls.", metavar="CLASS:NUMBER:shortcut|core:NAME")
    ] = None,
    galleries: Annotated[bool, Parameter(help="Draw the images with most and least of each component.")] = True,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Principal components of each class's logit over the stored features: contributions that sum to it, galleries, accuracy by third.

    Example: `heatlas components maps/ --name "octagon:0:shortcut:bar code"`
    """
    from ..components.class_tables import find_components

    tables = find_components(store, classes=classes, count=count, names=name or (), galleries=galleries)
    if as_json:
        print(
            json.dumps(
                {
                    "components": tables.components.to_pylist(),
                    "spuriosity": [ranking.as_json() for ranking in tables.rankings],
                    "galleries": tables.galleries,
                    "uri": tables.uri,
                },
                indent=2,
            )
        )
    else:
        print(harmless(tables.text()))
    return 0
