"""`heatlas bank`: those settings of `heatlas explain` that say which images go through which model, and a file to write."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from ..settings.load import load_settings
from ..settings.run import leaves
from .explain import Config, print_result
from .settings_flags import GROUPS, given_settings

TAKEN = ("model", "data", "data_root", "rows", "images", "where", "ids", "sample", "limit", "batch_size", "seed", "device",
         "columns.id", "columns.uri", "columns.label", "columns.image", "labels.folder")  # fmt: skip
SETTINGS = tuple(name for name in leaves() if name in TAKEN or name.startswith(("preprocess.", "decode.")))
TEXTS = {
    "model": "As for `heatlas explain`, but needs no classifier: features are the input of its classifying linear layer, or its output.",
    "data": "Labelled images, from any source of `heatlas explain`; not the images to be explained, or each finds itself.",
    "batch_size": "Images per forward pass.",
    "where": "Only samples for which this SQL condition is true.",
    "ids": "Only the samples whose ids this file lists.",
    "sample": "This many samples, drawn at random by --seed.",
    "limit": "Only the first samples of the listing.",
    "seed": "Seed of --sample.",
}


def bank_command(
    *,
    config: Config = None,
    out: Annotated[str, Parameter(help="File to write, .safetensors; path or URI.", group=GROUPS["out"])],
    overwrite: Annotated[bool, Parameter(help="Replace the file if it exists.", group=GROUPS["out"])] = False,
    **flags: Any,
) -> int:
    """Write a feature bank: features of labelled images, a k-NN classifier for models without one.

    `heatlas explain --bank FILE` classifies with it.

    Example: `heatlas bank --model timm:vit_small_patch14_dinov2 --data labelled/ --out bank.safetensors`
    """
    settings = load_settings({**given_settings(flags), "out": out}, config)
    from ..explain.feature_bank import bank_settings

    print_result(bank_settings(settings, overwrite))
    return 0
