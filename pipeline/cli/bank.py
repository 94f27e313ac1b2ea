"""`heatlas bank`: those flags of `heatlas explain` that say which images go through which model, and a file."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from cyclopts import Parameter

from ..settings.load import load_settings
from ..settings.run import leaves
from .explain import GROUPS, explain_command, flag, typed
from .signature import set_signature

TAKEN = (
    "model",
    "data",
    "data_root",
    "rows",
    "images",
    "where",
    "ids",
    "sample",
    "limit",
    "batch_size",
    "seed",
    "device",
)
"""And the groups `preprocess` and `columns`, without what a bank does not keep."""
COLUMNS = ("columns.id", "columns.uri", "columns.label", "columns.image")
TEXTS = {
    "model": "As for `heatlas explain`; it need not have a classifier: features are what its classifying linear layer is given, or what it returns.",
    "data": "Labelled images, from any source of `heatlas explain`; others than those that are to be explained, or each finds itself.",
    "batch_size": "Images per forward pass.",
    "where": "Take only samples for which this SQL condition is true, over id, uri, label and further columns.",
    "ids": "Take only the samples whose ids this file lists, one per line (or its column id: .csv, .jsonl, .parquet).",
    "sample": "Take so many samples, drawn at random by --seed.",
    "limit": "Take only the first samples of the listing.",
    "seed": "Seed of --sample.",
}


def bank_command(*, out: str, overwrite: bool = False, config: str | None = None, **flags: Any) -> int:
    """Write the features of labelled images into one file, by which `heatlas explain --bank` classifies without a classifier."""
    settings = load_settings({**typed(flags), "out": out}, config)
    from ..explain.feature_bank import bank_settings

    bank_settings(settings, overwrite)
    return 0


def signature() -> inspect.Signature:
    """Flags of `explain`, some with another help, and its own."""
    fields = leaves()
    names = [name for name in fields if name in (*TAKEN, *COLUMNS) or name.startswith("preprocess.")]
    own = [
        inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[
            str, Parameter(name="--out", help="File to write, ending in .safetensors; path or URI.", group=GROUPS["out"])]),
        inspect.Parameter("overwrite", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[
            bool, Parameter(name="--overwrite", help="Replace the file if it is there.", group=GROUPS["out"], negative="")]),
        inspect.signature(explain_command).parameters["config"],
    ]  # fmt: skip
    taken = [flag(name, fields[name], TEXTS.get(name)) for name in names]
    return inspect.Signature([*taken[:2], *own, *taken[2:]], return_annotation=int)


set_signature(bank_command, signature())
