"""`heatlas export`: a store in the format of another program."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .status import Out


def export_command(
    out: Out,
    /,
    *,
    to: Annotated[
        str, Parameter(help="Format: csv, cleanlab, coco, fiftyone, hf, lance or overlays.", metavar="FORMAT")
    ],
    place: Annotated[
        str, Parameter(name="--out", help="Local path of the file or folder to be; it appears whole or not at all.")
    ],
    where: Annotated[
        str | None, Parameter(help='SQL condition on the rows, such as "label <> prediction".', metavar="SQL")
    ] = None,
    ids: Annotated[
        str | None,
        Parameter(
            help="File with the ids wanted: one per line, or column id of .csv, .jsonl, .parquet.", metavar="FILE"
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        Parameter(help="Columns, instead of those that suit the format.", consume_multiple=True, negative=""),
    ] = None,
    overwrite: Annotated[bool, Parameter(help="Replace an older export at --out.", negative="")] = False,
    trust_code: Annotated[
        bool,
        Parameter(
            help="Run the Python source that the store names, to read its images (fiftyone, overlays).", negative=""
        ),
    ] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of text.", negative="")] = False,
) -> int:
    """Write a store, or some of its rows, for FiftyOne, Hugging Face datasets, COCO tools, spreadsheets, Lance, cleanlab, or as pictures."""
    from ..export.export import export_store

    names = None if columns is None else [name for text in columns for name in text.split(",") if name]
    done = export_store(out, to, place, where=where, ids=ids, columns=names, overwrite=overwrite, trust_code=trust_code)
    print(json.dumps(dataclasses.asdict(done), indent=2) if as_json else harmless(done.text()))
    return 0
