"""`heatlas annotate`: push suggestions to an annotation tool, pull what people made of them as decisions."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ...errors import UsageError
from ..text import harmless


def annotate_command(
    action: Annotated[
        Literal["push", "pull"], Parameter(help="push writes a file for the tool, pull reads what it exported.")
    ],
    store: Annotated[str, Parameter(help="heatlas store: directory or URI.")],
    /,
    *,
    tool: Annotated[
        Literal["coco", "label-studio", "cvat", "fiftyone", "csv", "parquet"],
        Parameter(help="Format; csv and parquet are for people without a tool."),
    ],
    out: Annotated[
        str | None,
        Parameter(help="With push: file to write (.json, .zip for cvat, .csv, .parquet), or folder for fiftyone."),
    ] = None,
    source: Annotated[
        str | None, Parameter(name="--from", help="With pull: file or folder that the tool exported.")
    ] = None,
    kind: Annotated[
        list[Literal["shortcut", "missing", "label"]] | None,
        Parameter(help="With push: kinds of suggestions; default: all."),
    ] = None,
    limit: Annotated[int, Parameter(help="With push: most suggestions of each kind, at least 1.")] = 200,
    overwrite: Annotated[bool, Parameter(help="With push: replace an older push at --out.")] = False,
    accept_unchanged: Annotated[
        bool,
        Parameter(
            help="With pull: suggestions that came back as they were sent count as confirmed (coco, cvat, fiftyone)."
        ),
    ] = False,
    who: Annotated[str | None, Parameter(help="With pull: name, for answers without one; default: the user's.")] = None,
    round_: Annotated[int | None, Parameter(name="--round", help="With pull: round of review.")] = None,
) -> int:
    """Send shortcut masks, missing objects and labels to an annotation tool, and take the answers back as decisions.

    Example: `heatlas annotate push maps/ --tool label-studio --out tasks.json`
    """
    from ..annotate.exchange import pull_answers, pulled_text, push_suggestions, pushed_text
    from ..annotate.suggestion import KINDS
    from ..atlas import open_atlas

    if action == "push":
        if out is None or source is not None:
            raise UsageError(
                "annotate push needs --out, the file to write for the tool, and no --from, which belongs to pull"
            )
        pushed = push_suggestions(
            open_atlas(store), tool, out, kinds=kind or tuple(KINDS), limit=limit, overwrite=overwrite
        )
        print(harmless(pushed_text(pushed)))
        return 0
    if source is None or out is not None:
        raise UsageError("annotate pull needs --from, what the tool exported, and no --out, which belongs to push")
    pulled = pull_answers(open_atlas(store), tool, source, accept_unchanged=accept_unchanged, who=who, round=round_)
    print(harmless(pulled_text(pulled, accept_unchanged)))
    return 0
