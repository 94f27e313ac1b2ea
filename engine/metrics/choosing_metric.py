"""A metric by which a map was chosen among several says nothing about that map: it is refused, with its whole family."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import SettingsError
from .protocol import METRICS


def family_of(name: str) -> tuple[str, ...]:
    """The metrics that are defined beside it, itself among them: those that a map chosen by it is likely to please, too."""
    home = METRICS[name].measure.__module__
    return tuple(other for other, metric in METRICS.items() if metric.measure.__module__ == home)


def refuse_choosing_metric(method: str, selected_by: str | None, names: Sequence[str]) -> None:
    """Refuse to evaluate maps by what chose them.

    Raises:
        SettingsError: Naming the metrics, and those that may be asked for.
    """
    if selected_by is None:
        return
    refused = [name for name in names if name in family_of(selected_by)]
    if refused:
        rest = [name for name in names if name not in refused]
        raise SettingsError(
            f"{', '.join(refused)} cannot evaluate maps of {method}, which chooses each map by {selected_by}; "
            f"give metrics without {', '.join(family_of(selected_by))}"
            + (f", such as {','.join(rest)}" if rest else "")
        )
