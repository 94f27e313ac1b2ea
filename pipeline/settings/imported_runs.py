"""Stored settings of runs whose maps came from other tools: what stands there instead of a method's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMPORTED = "imported"
"""Key of the choices of `heatlas import` among a run's stored settings."""
CARRIER = "rise"
"""The method that is set where an imported run is prepared anew; it takes every model, and explains nothing."""
OF_THE_MAPS = "as imported"
"""Stored as `target` where the maps' files say their classes."""


def command_of(stored: Mapping[str, Any]) -> str:
    """The command that began a run with these stored settings, and resumes it."""
    return "heatlas import" if IMPORTED in stored else "heatlas explain"


def preparable(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings of any run as `load_settings` takes them."""
    if IMPORTED not in stored:
        return dict(stored)
    kept = {name: value for name, value in stored.items() if name != IMPORTED}
    return kept | {"method": CARRIER} | ({"target": "predicted"} if stored.get("target") == OF_THE_MAPS else {})
