"""The logger `heatlas`, and the handler by which the command line shows what it says.

Library code logs and never prints: what a run does at level INFO, what somebody may want to act on at level WARNING.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.text import Text

from .text import harmless

LOG = logging.getLogger("heatlas")


def say(text: str) -> None:
    """Log what a run does or notes."""
    LOG.info(text)


class TerminalHandler(logging.Handler):
    """Prints each message as `heatlas: MESSAGE`, whole lines that a live bar on the same console leaves intact."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(logging.INFO)
        self.console = Console(file=stream, highlight=False, soft_wrap=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message; what a terminal would obey is shown instead."""
        self.console.print(Text(f"heatlas: {harmless(record.getMessage())}"))


@contextlib.contextmanager
def shown_in_terminal(stream: TextIO | None = None) -> Iterator[TerminalHandler]:
    """Show what is logged on `stream`, by default stderr, while the body runs."""
    handler, level, propagate = TerminalHandler(stream or sys.stderr), LOG.level, LOG.propagate
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield handler
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        LOG.propagate = propagate


def terminal_console() -> Console | None:
    """The console of the command line; None where heatlas is used as a library."""
    return next((handler.console for handler in LOG.handlers if isinstance(handler, TerminalHandler)), None)
