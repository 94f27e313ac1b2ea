"""Pillow's remarks on damaged metadata, silenced: a corrupt EXIF block says nothing about the pixels beside it.

Pillow makes them as `UserWarning`s, from many places and already while a file is opened. Where warnings are errors (`-W
error`), each would turn a fine image into an error row. Python 3.11 cannot silence warnings for one thread, and
`warnings.catch_warnings` in one thread undoes what another just did; so the filter is set for the process, and stays.
"""

from __future__ import annotations

import re
import threading
import warnings

_OURS = ("ignore", None, UserWarning, re.compile(r"PIL\."), 0)
"""An entry of `warnings.filters`: action, message, category, module, line."""
_LOCK = threading.Lock()


def silence_pillow() -> None:
    """Put our filter before all others, if it is not there; somebody may have set or reset filters since the last image."""
    if _first() != _OURS:
        with _LOCK:
            if _first() != _OURS:
                warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _first() -> tuple | None:
    return warnings.filters[0] if warnings.filters else None
