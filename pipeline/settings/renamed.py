"""Settings that older releases named otherwise: stored runs keep the old names, users are told the new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .imported_runs import preparable

RENAMED = {"score": "confidence", "floors": "chance_maps"}
"""New names by old ones."""


def current_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stored run under the names that they have today, as `load_settings` takes them."""
    return {RENAMED.get(name, name): value for name, value in preparable(stored).items()}
