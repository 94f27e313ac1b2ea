"""`heatlas methods`: every explanation method as records and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ...engine.methods.protocol import Method
from ...engine.methods.registry import entries, find_method
from ...errors import SettingsError, did_you_mean
from ..settings.allowed_values import admits, metavar
from ..settings.run import leaves
from .help_text import MOST_COLUMNS, two_columns
from .settings_flags import default_text

ARCHITECTURES = {"cnn": "CNN", "vit": "ViT", "any": "any"}
STATUSES = {
    "published": "defined by the paper",
    "code": "as the authors' code has it",
    "partial": "public text leaves gaps, which heatlas fills",
    "ours": "heatlas's own",
}
"""What `status` says of a method's source."""

LEGEND = (
    "passes: forwards (F) and backwards (B) of the model per image and class, with default settings; per image: as many as it has masks. "
    "`heatlas explain --method NAME` uses a method, `heatlas methods NAME` lists its options, `heatlas methods --json` tells "
    "more, docs/methods.md explains."
)


def method_records() -> list[dict[str, Any]]:
    """Every method, in the order of the registry.

    Returns:
        JSON values: `name`, `package` that brings it, and either its declaration or the `problem` that keeps it from being imported.
    """
    return [record_of(name) for name in entries()]


def method_record(name: str) -> dict[str, Any]:
    """One method, as `method_records` gives it.

    Raises:
        SettingsError: If there is no such method.
    """
    if name not in entries():
        raise SettingsError(f"unknown method {name!r}{did_you_mean(name, entries())}; there are {', '.join(entries())}")
    return record_of(name)


def record_of(name: str) -> dict[str, Any]:
    facts = {"name": name, "package": entries()[name].package}
    try:
        return {**facts, **declaration(find_method(name))}
    except SettingsError as error:
        return {**facts, "problem": str(error)}


def method_text(record: Mapping[str, Any]) -> str:
    """One method with its options, for people."""
    if "problem" in record:
        return f"{record['name']} cannot be used: {record['problem']}"
    facts = [
        ("models", ARCHITECTURES[record["architecture"]]),
        ("passes", passes(record["cost"])),
        ("needs", ", ".join(record["needs"]) or "nothing but the model"),
        ("source", record["source"]),
        ("status", STATUSES[record["status"]]),
        *([("display", "made to be looked at: consensus and curation refuse it")] if record["for_display"] else []),
        *([("ours", record["completed"])] if record["completed"] else []),
    ]
    prefix = f"{record['name']}."
    options = [
        (f"--{option_label(setting, field)}", " ".join([field.description, *default_note(field)]))
        for setting, field in leaves().items()
        if setting.startswith(prefix)
    ]
    width = min(Console().width, MOST_COLUMNS)
    lines = [f"{record['name']}: {record['summary']}", *two_columns(facts, width), "options of `heatlas explain`:"]
    return "\n".join([*lines, *(two_columns(options, width) if options else ["  none"])])


def option_label(setting: str, field: Any) -> str:
    name = setting.replace("_", "-")
    return name if admits(field.annotation, bool) else f"{name} {metavar(field.annotation)}"


def default_note(field: Any) -> list[str]:
    text = default_text(field.default)
    return [f"[{text}]"] if text else []


def declaration(method: Method) -> dict[str, Any]:
    """What a method says of itself; its cost and passes are those of its default settings."""
    cost = method.cost(method.settings())
    return {
        "summary": method.summary,
        "source": method.source,
        "status": method.status,
        "completed": method.completed,
        "for_display": method.for_display,
        "architecture": method.architecture,
        "needs": [need for need in ("gradients",) if getattr(method, need)],
        "cost": None if cost is None else {"forwards": cost.forwards, "backwards": cost.backwards},
        "signed": method.signed,
        "resolution": method.resolution,
        "stochastic": method.stochastic,
        "extras": dict(method.extras),
        "settings": {setting.name: default_of(setting) for setting in dataclasses.fields(method.settings)},
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


def source_table(records: Sequence[dict[str, Any]]) -> Table:
    """Where every method comes from, how much of it public text gives, and what heatlas added."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "source", "status", "completed by heatlas"):
        table.add_column(heading, no_wrap=heading == "method")
    for record in records:
        if "problem" not in record:
            table.add_row(
                record["name"], record["source"], STATUSES[record["status"]], record["completed"] or "nothing"
            )
    return table


def print_method_table(records: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """The records for people: one method a row."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "models", "passes", "needs", "what it shows"):
        table.add_column(heading, no_wrap=heading == "method")
    for record in records:
        if "problem" in record:
            table.add_row(record["name"], "", "", "", f"cannot be used: {record['problem']}")
        else:
            facts = (passes(record["cost"]), ", ".join(record["needs"]), record["summary"])
            table.add_row(record["name"], ARCHITECTURES[record["architecture"]], *facts)
    console = console or Console()
    console.print(table)
    console.print(source_table(records))
    console.print(LEGEND, markup=False, highlight=False)
