"""`heatlas layers`: the block-end layers of a model."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json


def layers_command(
    model: Annotated[str, Parameter(help="Model as in `heatlas explain --model`, with the same weights.")],
    /,
    *,
    size: Annotated[
        int | None, Parameter(help="Height and width of the network's input in pixels; default: the model's own.")
    ] = None,
    untrained: Annotated[
        bool, Parameter(help="Random weights instead: the same layers, nothing to download (torchvision).")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show the block-end layers from which SISE takes its feature maps.

    Example: `heatlas layers torchvision:resnet50 --untrained`
    """
    from .layer_table import block_table, layer_records

    records = layer_records(model, size, untrained=untrained)
    print(json.dumps(records, indent=2) if as_json else harmless(block_table(records)))
    return 0
