"""`heatlas report`: arguments in, one call down, text out."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..text import counted, harmless
from .status import Out


def report_command(
    out: Out,
    /,
    *,
    to: Annotated[str | None, Parameter(help="File or URI of the page instead of OUT/report.html.")] = None,
    gallery: Annotated[int, Parameter(help="Pictures per gallery, 1 to 200; with 8 the page stays below 8 MB.")] = 8,
    method: Annotated[
        str | None, Parameter(help="Whose rows, where the store has several methods; by default the one with the most.")
    ] = None,
    blocks: Annotated[
        bool | None,
        Parameter(
            help="Load the run's model and recompute three images, to show how SISE arrived at their maps. By default only "
            "models of torchvision and heatlas: another one is code that the store names."
        ),
    ] = None,
) -> int:
    """Write the run as one HTML page: scores, classes, images worth a look, errors. It opens from disk and fetches nothing."""
    from ..report.build import write_report

    done = write_report(out, to, gallery=gallery, method=method, blocks=blocks)
    print(harmless(f"{done.uri}  ({done.size / 1e6:.1f} MB, {counted(done.pictures, 'picture')})", lines=False))
    if done.unread:
        print(f"note: {counted(done.unread, 'image')} could not be read any more; their maps stand alone")
    return 0
