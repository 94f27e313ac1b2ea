"""`heatlas decide`: record decisions about images, list them, and write them as a manifest."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ...errors import UsageError
from ..text import counted, harmless


def decide_command(
    store: Annotated[str, Parameter(help="heatlas store: directory or URI.")],
    /,
    *,
    file: Annotated[
        str | None,
        Parameter(name="--from", help="Table with the columns id and decision (.csv, .tsv, .jsonl, .parquet)."),
    ] = None,
    ids: Annotated[list[str] | None, Parameter(name="--id", help="Images to decide about, with --kind.")] = None,
    kind: Annotated[
        Literal["ok", "relabel", "drop", "shortcut", "core", "unsure", "undo"] | None,
        Parameter(help="Decision about the images of --id."),
    ] = None,
    label: Annotated[str | None, Parameter(help="Right class, with --kind relabel.")] = None,
    why: Annotated[str | None, Parameter(help="Reason, for decisions that give none.")] = None,
    who: Annotated[str | None, Parameter(help="Name, for decisions that give none; default: the user's.")] = None,
    round_: Annotated[
        int | None, Parameter(name="--round", help="Round of review, for decisions that give none.")
    ] = None,
    manifest: Annotated[
        str | None,
        Parameter(help="Write the data set with the decisions applied (.csv, .jsonl, .parquet), for explain --data."),
    ] = None,
    out: Annotated[
        str | None, Parameter(help="Write the current decisions as a table (.parquet, .csv, .jsonl).")
    ] = None,
) -> int:
    """Record decisions about images beside the store; without --from and --id, list the current ones and conflicts.

    Example: `heatlas decide maps/ --from queue.csv --manifest decided.csv`
    """
    from ..atlas import open_atlas
    from ..decisions.decision_file import read_decision_file
    from ..decisions.manifest import manifest_text, write_manifest
    from ..decisions.record import current_decisions, decisions_text, record_decisions
    from ..decisions.table_file import write_decisions

    if file is not None and ids is not None:
        raise UsageError("give the decisions either in a file (--from) or by --id and --kind, not both")
    if (ids is None) != (kind is None):
        raise UsageError("--id names the images and --kind what is decided about them; give both")
    atlas, undecided = open_atlas(store), 0
    if file is not None or ids is not None:
        if file is not None:
            read = read_decision_file(file)
            chosen, undecided = read.decisions, read.undecided
        else:
            chosen = [{"id": identity, "kind": kind, "label_name": label} for identity in ids or ()]
        written = record_decisions(atlas, chosen, who=who, why=why, round=round_)
        skipped = f"; {counted(undecided, 'row')} without a decision skipped" if undecided else ""
        print(f"recorded {counted(len(written), 'decision')}{skipped}")
    decisions = current_decisions(store)
    print(harmless(decisions_text(decisions)))
    if out is not None:
        print(harmless(f"decisions: {write_decisions(decisions, out)}"))
    if manifest is not None:
        print(harmless(manifest_text(write_manifest(atlas, manifest))))
    return 0
