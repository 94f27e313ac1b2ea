"""Packages that only some models need."""

from __future__ import annotations

import importlib
from types import ModuleType

from ...errors import ModelError


def require_package(package: str, extra: str, what: str) -> ModuleType:
    """Import a package that an extra brings.

    Raises:
        ModelError: With the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{what} needs {error.name}: install it with pip install 'heatlas[{extra}]' (or pip install {package})"
        ) from error
