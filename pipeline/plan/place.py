"""Where the store of a forecast would be, for arguments that do not say it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..settings.load import read_config

NOWHERE = os.path.join(os.path.abspath(os.sep), "heatlas-plan-writes-nothing")
"""Stands for `out` where neither arguments nor YAML file have it; nothing is there."""


def with_place(given: Mapping[str, Any], config: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The arguments, with a place where none is written.

    Raises:
        SettingsError: If the YAML file cannot be read.
    """
    if given.get("out") is not None or (config is not None and "out" in read_config(os.fspath(config))):
        return {name: value for name, value in given.items() if name != "out" or value is not None}
    return {**given, "out": NOWHERE}
