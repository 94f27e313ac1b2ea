"""`heatlas evaluate`: metrics for a store that is there."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from .arguments import Store, names_of
from .explain import print_result
from .settings_flags import given_settings


def evaluate_command(
    store: Store,
    /,
    *,
    metrics: Annotated[list[str], Parameter(help="Presets (`paper`, `standard`, `full`) or metric names.")] = ["standard"],  # noqa: B006
    **flags: Any,
) -> int:  # fmt: skip
    """Add metrics to a store without recomputing its maps; stored metrics are not computed again.

    The same command again resumes. Model, images and all that changes a value are the run's. Of maps that are stored reduced, only
    metrics of the map alone are added (`ebpg@map56`); all need `heatlas explain --store.map-size input`.

    Example: `heatlas evaluate maps/ --metrics full --workers 4`
    """
    from ..evaluate.evaluate import evaluate_store

    print_result(evaluate_store(store, metrics=names_of(metrics) or (), **given_settings(flags)))
    return 0
