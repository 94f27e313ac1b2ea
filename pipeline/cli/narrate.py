"""`heatlas narrate`: sentences about rows and classes."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from ..text import counted, harmless
from .arguments import Json, Store

PRINTED = 10


def narrate_command(
    store: Store,
    /,
    *,
    language: Annotated[str, Parameter(help="en, de, or a .toml file with sentences.", metavar="NAME|FILE")] = "en",
    ids: Annotated[list[str] | None, Parameter(name="--id", help="Only these images.")] = None,
    limit: Annotated[int | None, Parameter(help="Rows, an even sample; default: all.")] = None,
    method: Annotated[str | None, Parameter(help="Method of the rows, where there are several; default: the most frequent.")] = None,
    vlm: Annotated[
        str | None,
        Parameter(help="package.module:callable that writes the texts instead; what is not grounded is replaced.", metavar="MODULE:CALLABLE"),
    ] = None,
    parts: Annotated[
        str | None, Parameter(help="JSON of labelled parts: {ID: {NAME: [x, y] or [x0, y0, x1, y1]}} in shares of the image.", metavar="FILE")
    ] = None,
    trust_code: Annotated[bool, Parameter(help="Run the Python code that the store's data set came from, to show images to --vlm.", negative=())] = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Write sentences about every row and class into STORE/narration/; every number in them is checked against the row.

    Example: `heatlas narrate maps/ --limit 20`
    """
    from ..narrate.narrate import narrate_store

    written = narrate_store(
        store, language=language, ids=ids, limit=limit, method=method, vlm=vlm, parts=parts, trust_code=trust_code
    )
    if as_json:
        print(json.dumps({"classes": written.classes.to_pylist(), "rows": written.rows.to_pylist()}, indent=2))
        return 0
    for row in written.classes.slice(0, PRINTED).to_pylist():
        print(harmless(row["text"], lines=False))
    for row in written.rows.slice(0, PRINTED).to_pylist():
        print(harmless(f"{row['id']}: {row['text']}", lines=False))
    statuses = ", ".join(f"{count} {status}" for status, count in written.statuses().items())
    print(
        harmless(
            f"\n{written.uri}: {counted(len(written.rows), 'row')} ({statuses}), texts of {len(written.classes)} classes"
        )
    )
    if written.unknown_parts:
        print(
            f"note: {counted(written.unknown_parts, 'image')} in --parts {'is' if written.unknown_parts == 1 else 'are'} not in the store"
        )
    if failure := written.failure():
        print(harmless(f"note: {failure}; templates stand there instead", lines=False))
    return 0
