"""`heatlas compare`: two runs over the same images."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json, Resamples, ResampleSeed, Store, names_of


def compare_command(
    first: Store,
    second: Annotated[
        str,
        Parameter(help="Another store over the same images, or the same one with --method and --other-method."),
    ],
    /,
    *,
    out: Annotated[
        str | None, Parameter(help="Write the comparison as an HTML page too, to this file or URI.", metavar="FILE")
    ] = None,
    metrics: Annotated[
        list[str] | None, Parameter(help="Metrics to compare; default: all that both define alike.")
    ] = None,
    method: Annotated[str | None, Parameter(help="Method of the first run's rows, where it has several.")] = None,
    other_method: Annotated[str | None, Parameter(help="Method of the second run's rows.")] = None,
    limit: Annotated[int, Parameter(help="Explanations that moved most to list, 1 to 200.")] = 12,
    resamples: Resamples = 1000,
    seed: ResampleSeed = 0,
    fail_if: Annotated[
        list[str] | None,
        Parameter(
            help="Exit code 1 if this holds of the change from FIRST to SECOND of a metric's mean or of accuracy, or of changed or distance.",
            metavar='"NAME < NUMBER"',
        ),
    ] = None,
    choice: Annotated[
        str | None, Parameter(help="choice.parquet of `heatlas choose`; default: those in the stores.", metavar="FILE")
    ] = None,
    verdict: Annotated[
        bool,
        Parameter(
            help="Load both models and compare them on FIRST's locked test split too, marks removed and pasted, as heatlas verdict; one model each."
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Compare two models, methods or settings over the same images: paired metrics, predictions, explanations that moved.

    Example: `heatlas compare before/ after/ --fail-if 'ebpg < -0.02'`
    """
    from ..compare.compare import compare_runs
    from ..compare.fail_conditions import failed_conditions, parse_conditions
    from ..compare.page import write_page
    from ..compare.text import comparison_text
    from ..report.build import file_place

    conditions = parse_conditions(fail_if or ())
    if out is not None:
        file_place(out)
    comparison = compare_runs(
        first,
        second,
        metrics=names_of(metrics),
        method=method,
        other_method=other_method,
        most=limit,
        resamples=resamples,
        seed=seed,
        choice=choice,
    )
    failures = failed_conditions(comparison, conditions)
    judged = _judged(first, second) if verdict else None
    size = write_page(comparison, out) if out is not None else 0
    if as_json:
        said = {} if judged is None else {"verdict": judged[0]}
        print(json.dumps({**comparison.as_json(), "failures": failures, **said}, indent=2))
    else:
        more = [] if judged is None else ["", judged[1]]
        print(harmless("\n".join([comparison_text(comparison), *more, *failures])))
    if out is not None and not as_json:
        print(harmless(f"\n{out}  ({size / 1e6:.1f} MB)"))
    return 1 if failures else 0


def _judged(first: str, second: str) -> tuple[dict[str, Any], str]:
    """The verdict on two models as JSON values and as text."""
    from ..verdict.judge import judge_repair  # here, because only this loads models
    from ..verdict.text import verdict_text

    judged = judge_repair([first], [second], store=first, fewest_seeds=1)
    return judged.as_json(), verdict_text(judged)
