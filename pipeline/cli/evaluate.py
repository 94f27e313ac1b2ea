"""`heatlas evaluate`: metrics for a store that is there."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from cyclopts import Parameter

from ..evaluate.settings import HOW
from ..settings.run import leaves
from .explain import flag, typed
from .signature import set_signature
from .status import Out

METRICS_HELP = (
    "Metrics to add: presets (`paper`, `standard`, `full`) or names; what is stored already is not computed again."
)
Metrics = Annotated[
    list[str], Parameter(help=METRICS_HELP, consume_multiple=True, negative="", show_default="standard")
]


def evaluate_command(out: Out, /, *, metrics: Metrics = ("standard",), **flags: Any) -> int:  # pyright: ignore[reportArgumentType]
    """Add metrics to a store without making its maps again.

    The same command again continues where it stopped. Model, images and all that changes a value are the run's; its maps must
    be stored at full resolution (`heatlas explain --store.map-size input`).
    """
    from ..evaluate.evaluate import evaluate_store

    names = [name for text in metrics for name in text.split(",") if name]
    evaluate_store(out, metrics=names, **typed(flags))
    return 0


def signature() -> inspect.Signature:
    own = [one for one in inspect.signature(evaluate_command, eval_str=True).parameters.values() if one.name != "flags"]
    fields = leaves()
    return inspect.Signature([*own, *(flag(name, fields[name]) for name in HOW)], return_annotation=int)


set_signature(evaluate_command, signature())
