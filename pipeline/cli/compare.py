"""`heatlas compare`: two runs over the same images."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless

First = Annotated[str, Parameter(help="Directory or URI of a run's store.")]
Second = Annotated[
    str, Parameter(help="Another one over the same images, or the same with --method and --other-method.")
]


def compare_command(
    first: First,
    second: Second,
    /,
    *,
    html: Annotated[
        str | None, Parameter(help="Write the comparison as one HTML page to this file or URI too.", metavar="FILE")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        Parameter(
            help="Metrics to compare; by default all that both define alike.", consume_multiple=True, negative=""
        ),
    ] = None,
    method: Annotated[str | None, Parameter(help="Whose rows of the first run, where it has several methods.")] = None,
    other_method: Annotated[str | None, Parameter(help="Whose rows of the second run.")] = None,
    limit: Annotated[int, Parameter(help="How many explanations that moved most are listed, 1 to 200.")] = 12,
    resamples: Annotated[int, Parameter(help="Resamples of the bootstrap intervals.")] = 1000,
    seed: Annotated[int, Parameter(help="Seed of the resamples.")] = 0,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of text.", negative="")] = False,
) -> int:
    """Compare two models, methods or settings over the same images: metrics in pairs, predictions, and explanations that moved."""
    from ..compare.compare import compare_runs
    from ..compare.page import write_page
    from ..compare.text import comparison_text
    from ..report.build import file_place

    if html is not None:
        file_place(html)
    names = None if metrics is None else [name for text in metrics for name in text.split(",") if name]
    found = compare_runs(
        first,
        second,
        metrics=names,
        method=method,
        other_method=other_method,
        most=limit,
        resamples=resamples,
        seed=seed,
    )
    size = write_page(found, html) if html is not None else 0
    print(json.dumps(found.as_json(), indent=2) if as_json else harmless(comparison_text(found)))
    if html is not None and not as_json:
        print(harmless(f"\n{html}  ({size / 1e6:.1f} MB)"))
    return 0
