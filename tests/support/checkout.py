"""Where this checkout lies, and its modules that are no part of the installed package (`bench`, `docs.generate`)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"
"""Photographs and weights that are not part of the repository; tests that use them skip where they are absent."""


def checkout_module(name: str) -> ModuleType:
    """The module of this dotted name below the checkout, which is on the path only as long as the import takes."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT))
