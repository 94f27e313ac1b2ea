"""The command that a run was started with, written anew from its stored settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from .imported_runs import IMPORTED
from .renamed import current_names
from .run import leaves

ONCE = frozenset({"append", "retry_errors"})
"""Settings that were meant for one start of the run only."""
CHOICES = {
    "method": "imported",
    "by": "id",
    "sign": "positive",
    "channels": "sum",
    "covers": None,
    "array": None,
    "method_index": None,
}
"""Of `heatlas import`, with their defaults; a test holds them to the command."""
ABSENT = object()
"""What a run did not store, such as the settings of the methods that it did not choose."""


def explain_command(settings: Mapping[str, Any]) -> str:
    """A shell line that continues the run: its stored settings where they are not the defaults.

    Relative paths in it are as the user gave them, so it works in the folder where the run was started.
    """
    current = current_names(settings)
    if IMPORTED in settings:
        return " ".join(import_words(settings[IMPORTED], str(settings.get("method")), current))
    parts = (part for name, field in leaves().items() for part in _flag(name, field, current))
    return " ".join(["heatlas explain", *parts])


def import_words(choices: Mapping[str, Any], method: str, current: Mapping[str, Any]) -> Iterator[str]:
    """The words of the command that imported maps; maps that were not files are left for the user to name."""
    yield "heatlas import"
    words = {"maps": choices.get("maps") or "MAPS", **{name: choices.get(name) for name in CHOICES}, "method": method}
    for name, value in words.items():
        if value is not None and value != CHOICES.get(name):
            yield f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
    for name, field in leaves().items():
        if name not in ("method", "store.map_size"):
            yield from _flag(name, field, current)
    if (size := _nested(current, "store.map_size")) not in (ABSENT, "input"):
        yield f"--store.map-size {size}"


def _flag(name: str, field: Any, settings: Mapping[str, Any]) -> Iterator[str]:
    value = _nested(settings, name)
    default = None if field.is_required() else to_jsonable_python(field.default)
    if value is ABSENT or value == default or name in ONCE:
        return
    group, dot, key = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        yield f"--{group}{dot}{'' if value else 'no-'}{key}"
        return
    yield f"--{group}{dot}{key}"
    yield from (
        shlex.quote("none" if item is None else str(item))
        for item in (value or ["none"] if isinstance(value, list) else [value])
    )


def _nested(settings: Mapping[str, Any], name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = value.get(part, ABSENT) if isinstance(value, Mapping) else ABSENT
    return value
