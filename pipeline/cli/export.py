"""`heatlas export`: a store in the format of another program."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json, Store, names_of


def export_command(
    store: Store,
    /,
    *,
    file_format: Annotated[
        str,
        Parameter(name="--format", help="What to write.", metavar="csv|cleanlab|coco|fiftyone|hf|lance|overlays"),
    ],
    out: Annotated[str, Parameter(help="Local path of the file or folder; it appears whole or not at all.")],
    where: Annotated[
        str | None, Parameter(help='SQL condition on the rows, such as "label <> prediction".', metavar="SQL")
    ] = None,
    ids: Annotated[
        str | None,
        Parameter(help="File of ids: one per line, or column id of .csv, .jsonl, .parquet.", metavar="FILE"),
    ] = None,
    columns: Annotated[list[str] | None, Parameter(help="Columns; default: those that suit the format.")] = None,
    overwrite: Annotated[bool, Parameter(help="Replace an older export at --out.")] = False,
    trust_code: Annotated[
        bool, Parameter(help="Run the Python source that the store names, to read its images.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Write rows of a store for FiftyOne, Hugging Face datasets, COCO tools, spreadsheets, Lance, cleanlab, or as pictures.

    Example: `heatlas export maps/ --format fiftyone --out fo/`
    """
    from ..export.export import export_store

    exported = export_store(
        store, file_format, out, where=where, ids=ids, columns=names_of(columns), overwrite=overwrite, trust_code=trust_code,
    )  # fmt: skip
    print(json.dumps(dataclasses.asdict(exported), indent=2) if as_json else harmless(exported.text()))
    return 0
