"""`heatlas report`: the run as one HTML page."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..text import counted, harmless
from .arguments import Store


def report_command(
    store: Store,
    /,
    *,
    out: Annotated[str | None, Parameter(help="File or URI of the page; default: STORE/report.html.")] = None,
    gallery: Annotated[int, Parameter(help="Pictures per gallery, 1 to 200; with 8 the page stays below 8 MB.")] = 8,
    method: Annotated[
        str | None, Parameter(help="Method of the rows, where there are several; default: the most frequent.")
    ] = None,
    blocks: Annotated[
        bool | None,
        Parameter(help="Load the run's model and show how SISE arrived at three maps; default: only models of "
                       "torchvision and heatlas, because others are code that the store names.", negative="--no-blocks"),
    ] = None,
    no_images: Annotated[
        bool, Parameter(help="Read and show no image, for private data: maps, ids and class names only.")
    ] = False,
) -> int:  # fmt: skip
    """Write the run as one HTML page: metrics, classes, images worth a look, errors. It opens from disk and fetches nothing.

    Example: `heatlas report maps/ --out maps.html`
    """
    from ..report.build import write_report

    page = write_report(store, out, gallery=gallery, method=method, blocks=blocks, images=not no_images)
    print(harmless(f"{page.uri}  ({page.size / 1e6:.1f} MB, {counted(page.pictures, 'picture')})", lines=False))
    if page.unread:
        print(f"note: {counted(page.unread, 'image')} could not be read any more; their maps stand alone")
    return 0
