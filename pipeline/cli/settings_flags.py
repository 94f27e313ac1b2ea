"""Settings as flags: made from the settings' own types, defaults and descriptions, and read back by the settings' own types."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ..settings.allowed_values import admits, metavar
from ..settings.methods import METHOD_GROUPS
from ..settings.run import leaves

TITLES = {
    "Data and model (any setting may stand in the --config file)": (
        "model", "data", "out", "bank", "explainer", "data_root", "rows", "images", "where", "ids", "sample", "limit", "allow_unlabelled",
    ),
    "Explanation": (
        "method", "target", "confidence", "metrics", "chance_maps", "sanity", "correct_shift", "budget", "precision", "forward", "batch_size", "seed",
    ),
    "Execution": (
        "workers", "device", "gpus_per_worker", "cpus_per_worker", "address", "shard_size",
        "image_timeout", "start_timeout", "shard_retries", "wait_for_space", "retry_errors", "append", "max_error_rate", "any_device", "shared_fs",
    ),
    **{f"Method {name} (others: heatlas methods NAME)": (name,) for name in METHOD_GROUPS},
    "Preprocessing (default: as the weights declare)": ("preprocess", "decode"),
    "Columns of a manifest or table; labels (default: by class names)": ("columns", "labels"),
    "Store": ("store",),
}  # fmt: skip
METAVARS = {
    "method": "NAME",
    "target": "CLASSES",
    "metrics": "NAME...",
    "confidence": "KIND",
    "budget": "AMOUNT",
    "correct_shift": "PIXELS",
    "forward": "KIND",
    "model": "MODEL",
    "data": "DATA",
    "out": "STORE",
    "bank": "FILE",
    "explainer": "FILE",
    "data_root": "FOLDER",
    "images": "FOLDER",
    "where": "SQL",
    "ids": "FILE",
    "address": "ADDRESS",
    "labels.order": "ORDER",
    "preprocess.size": "H W",
    "preprocess.resize": "KIND",
    "preprocess.interpolation": "FILTER",
    "preprocess.mean": "NUM...",
    "preprocess.std": "NUM...",
    "decode.range": "RANGE",
    "decode.bands": "NUM...",
}
"""Short forms where the types' own are long or say little."""
GROUPS = {name: Group(title, sort_key=order) for order, (title, names) in enumerate(TITLES.items()) for name in names}


def settings_flag(
    name: str, field: Any, text: str | None = None, *, default: Any = None, show: bool = True
) -> inspect.Parameter:
    """One keyword parameter for cyclopts, unset by default so that a configuration file can speak.

    Args:
        name: Dotted name of the setting.
        field: Its pydantic field.
        text: Help instead of the field's description.
        default: Default to show instead of the field's.
        show: Whether the help lists it.
    """
    kind = bool if admits(field.annotation, bool) else list[str] if admits(field.annotation, tuple) else str
    parameter = Parameter(
        name=f"--{name.replace('_', '-')}",
        help=text or field.description,
        group=GROUPS[name.partition(".")[0]],
        metavar=None if kind is bool else METAVARS.get(name) or metavar(field.annotation),
        show=show,
        show_default=False if field.is_required() else default_text(field.default if default is None else default),
        consume_multiple=True if kind == list[str] else None,
        negative=None if kind is bool else "",
    )
    optional = Annotated[kind | None, parameter]
    return inspect.Parameter(name.replace(".", "__"), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=optional)


def default_text(value: Any) -> Any:
    """A default as the help shows it; False for none to show."""
    if value is None or value is False:
        return False
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or False
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def given_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, by dotted name; the settings' own types do the conversion from text."""
    fields = leaves()
    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return {name: from_text(fields[name].annotation, value) for name, value in given.items()}


def from_text(annotation: Any, value: Any) -> Any:
    """Commas separate list items; `none` unsets."""
    if isinstance(value, list):
        return [item for text in value for item in text.split(",") if item]
    return None if value == "none" and admits(annotation, type(None)) else value
