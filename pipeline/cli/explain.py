"""`heatlas explain`: every setting as a flag, made from the settings' own types and descriptions."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ...configs import packaged_configs
from ..settings.allowed_values import admits, metavar
from ..settings.load import load_settings
from ..settings.methods import METHOD_GROUPS
from ..settings.run import leaves
from .signature import set_signature

TITLES = {
    "What (each may stand in the --config file instead)": ("model", "data", "out", "bank", "data_root", "rows", "images", "where", "ids", "sample", "limit"),
    "How to explain": (
        "method", "target", "confidence", "metrics", "chance_maps", "sanity", "budget", "precision", "batch_size", "fold_bn", "compile", "seed",
    ),
    "How to run": (
        "workers", "device", "gpus_per_worker", "cpus_per_worker", "address", "shard_size",
        "image_timeout", "start_timeout", "shard_retries", "retry_errors", "max_error_rate", "shared_fs",
    ),
    **{f"Method {name}": (name,) for name in METHOD_GROUPS},
    "Preprocessing (default: as the weights say)": ("preprocess",),
    "Columns of a manifest": ("columns",),
    "Store": ("store",),
}  # fmt: skip
GROUPS = {name: Group(title, sort_key=order) for order, (title, names) in enumerate(TITLES.items()) for name in names}


def explain_command(*, config: str | None = None, **flags: Any) -> int:
    """Explain a data set: maps and metrics of every image into a Parquet store.

    The same command again continues where it stopped. Settings come from defaults, then --config, then flags.
    """
    settings = load_settings(typed(flags), config)
    from ..explain.explain import explain_settings

    explain_settings(settings)
    return 0


def typed(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, by dotted name; the settings' own types do the conversion from text."""
    fields = leaves()
    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return {name: from_text(fields[name].annotation, value) for name, value in given.items()}


def from_text(annotation: Any, value: Any) -> Any:
    """Commas separate list items, `none` unsets."""
    if isinstance(value, list):
        items = [item for text in value for item in text.split(",") if item]
        if items != ["none"]:
            return items
        return None if admits(annotation, type(None)) else ()
    return None if value == "none" and admits(annotation, type(None)) else value


def flag(name: str, field: Any, text: str | None = None) -> inspect.Parameter:
    """One keyword parameter for cyclopts, unset by default so that a configuration file can speak; `text` where its help is another."""
    kind = bool if admits(field.annotation, bool) else list[str] if admits(field.annotation, tuple) else str
    parameter = Parameter(
        name=f"--{name.replace('_', '-')}",
        help=text or field.description,
        group=GROUPS[name.partition(".")[0]],
        metavar=None if kind is bool else metavar(field.annotation),
        show_default=default_text(field),
        consume_multiple=True if kind == list[str] else None,
        negative=None if kind is bool else "",
    )
    optional = Annotated[kind | None, parameter]
    return inspect.Parameter(name.replace(".", "__"), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=optional)


def default_text(field: Any) -> Any:
    if field.is_required() or field.default is None:
        return False
    value = field.default
    return (
        " ".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )


def signature() -> inspect.Signature:
    config = Parameter(
        name="--config",
        help=f"YAML file with settings, or a packaged one by name: {', '.join(packaged_configs())}.",
        group=GROUPS["model"],
        metavar="FILE|NAME",
    )
    first = inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, config]
    )
    flags = [flag(name, field) for name, field in leaves().items()]
    return inspect.Signature([*flags[:3], first, *flags[3:]], return_annotation=int)


set_signature(explain_command, signature())
