"""Names that people give to components of classes, kept by direction, so that they outlive another computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ...errors import UsageError

KINDS = ("shortcut", "core")
SAME_COSINE = 0.9
"""Of two directions, from which on they are one component."""


@dataclass(frozen=True, eq=False)
class ComponentName:
    """What a person calls a component."""

    class_name: str
    number: int
    kind: str
    """One of `KINDS`."""
    name: str
    direction: Float[np.ndarray, " feature"] | None = None
    """Set once the component is known."""

    def record(self) -> dict[str, Any]:
        """JSON values."""
        direction = None if self.direction is None else [float(value) for value in self.direction]
        return {
            **{field: getattr(self, field) for field in ("class_name", "number", "kind", "name")},
            "direction": direction,
        }


def name_of_record(record: dict[str, Any]) -> ComponentName:
    """As `ComponentName.record` gave it.

    Raises:
        KeyError: Where a value is missing.
    """
    label, number, kind, name = (record[field] for field in ("class_name", "number", "kind", "name"))
    return ComponentName(label, number, kind, name, np.array(record["direction"], np.float64))


def latest_names(names: Sequence[ComponentName]) -> list[ComponentName]:
    """Without those whose direction was given another name later."""
    return [
        name
        for place, name in enumerate(names)
        if name.direction is None or name_of_component(names[place + 1 :], name.class_name, name.direction) is None
    ]


def parse_name(text: str) -> ComponentName:
    """The name that `CLASS:NUMBER:KIND:NAME` says.

    Raises:
        UsageError: Unless it has the four parts.
    """
    parts = text.rsplit(":", 3)
    if len(parts) != 4 or not parts[1].isdecimal() or parts[2] not in KINDS or not parts[3].strip():
        raise UsageError(
            f"the name {text!r} must be CLASS:NUMBER:KIND:NAME with a kind of {', '.join(KINDS)}, such as octagon:0:shortcut:bar code"
        )
    return ComponentName(parts[0], int(parts[1]), parts[2], parts[3].strip())


def name_of_component(
    names: Sequence[ComponentName], class_name: str, direction: Float[np.ndarray, " feature"]
) -> ComponentName | None:
    """The latest name that was given to this direction of the class."""
    for name in reversed(names):
        same = name.class_name == class_name and name.direction is not None and len(name.direction) == len(direction)
        if same and abs(float(np.dot(np.asarray(name.direction), direction))) >= SAME_COSINE:
            return name
    return None
