"""`heatlas show`: maps over their images as PNG files."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Store


def show_command(
    store: Store,
    /,
    *,
    ids: Annotated[list[str] | None, Parameter(name="--id", help="Ids of the samples to draw.")] = None,
    limit: Annotated[int, Parameter(help="Without --id: draw this many, evenly spread over the run.")] = 12,
    out: Annotated[str | None, Parameter(help="Directory for the PNG files; default: STORE/_show.")] = None,
    trust_code: Annotated[
        bool, Parameter(help="Run the Python source that the store names, to read its images.")
    ] = False,
    edges: Annotated[
        str | None,
        Parameter(
            help="Draw the map times the image's edges: sobel, canny, or a file with HED's weights. For the eye only."
        ),
    ] = None,
) -> int:
    """Draw maps over their images, as PNG files. Exit code 1 if there is nothing to draw.

    Example: `heatlas show maps/ --id cat-1 dog-7 --out pictures/`
    """
    from ..pictures.show import show_overlays

    any_drawn = False
    for drawn, line in show_overlays(store, ids=ids, limit=limit, to=out, trust_code=trust_code, edges=edges):
        print(harmless(line, lines=False), flush=True)
        any_drawn |= drawn
    return 0 if any_drawn else 1
