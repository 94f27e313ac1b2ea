"""`heatlas methods`: every explanation method as records and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ...engine.methods.protocol import Method
from ...engine.methods.registry import entries, find_method
from ...errors import SettingsError

ARCHITECTURES = {"cnn": "CNN", "vit": "ViT", "any": "any"}


LEGEND = (
    "passes: forwards (F) and backwards (B) of the model per image and class, with default settings; per image: as many as it has masks. "
    "`heatlas explain --method NAME` uses a method, `heatlas explain --help` lists the settings of each, `heatlas methods --json` tells "
    "more, docs/methods.md explains."
)


def method_records() -> list[dict[str, Any]]:
    """Every method, in the order of the registry.

    Returns:
        JSON values: `name`, `package` that brings it, and either its declaration or the `problem` that keeps it from being imported.
    """
    found = []
    for name, entry in entries().items():
        try:
            found.append({"name": name, "package": entry.package, **declaration(find_method(name))})
        except SettingsError as error:
            found.append({"name": name, "package": entry.package, "problem": str(error)})
    return found


def declaration(one: Method) -> dict[str, Any]:
    """What a method says of itself; its cost and passes are those of its default settings."""
    cost = one.cost(one.settings())
    return {
        "summary": one.summary,
        "source": one.source,
        "architecture": one.architecture,
        "needs": [need for need in ("gradients", "training", "artefact") if getattr(one, need)],
        "cost": None if cost is None else {"forwards": cost.forwards, "backwards": cost.backwards},
        "signed": one.signed,
        "class_specific": one.class_specific,
        "resolution": one.resolution,
        "stochastic": one.stochastic,
        "extras": dict(one.extras),
        "settings": {setting.name: default_of(setting) for setting in dataclasses.fields(one.settings)},
    }


def default_of(setting: dataclasses.Field[Any]) -> Any:
    made = setting.default_factory
    value = made() if made is not dataclasses.MISSING else setting.default
    return list(value) if isinstance(value, tuple) else value


def passes(cost: dict[str, int] | None) -> str:
    """Such as `32F 32B`, or what is true of methods whose masks are the model's feature maps."""
    if cost is None:
        return "per image"
    return " ".join(f"{cost[kind]:,}{kind[0].upper()}" for kind in ("forwards", "backwards") if cost[kind])


def print_method_table(records: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """The records for people: one method a row."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "models", "passes", "needs", "what it shows"):
        table.add_column(heading, no_wrap=heading == "method")
    for one in records:
        if "problem" in one:
            table.add_row(one["name"], "", "", "", f"cannot be used: {one['problem']}")
        else:
            table.add_row(one["name"], ARCHITECTURES[one["architecture"]], passes(one["cost"]), ", ".join(one["needs"]), one["summary"])  # fmt: skip
    console = console or Console()
    console.print(table)
    console.print(LEGEND, markup=False, highlight=False)
