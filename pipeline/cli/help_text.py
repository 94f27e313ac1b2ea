"""The help of a command as two columns without boxes: options to the left, what they do and [their default] to the right."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

LEFT_COLUMNS = 23
"""Most characters of the left column; a text begins behind a longer option, and goes on below the others."""
MOST_COLUMNS = 110
"""Longest line, however wide the terminal is."""


class HelpFormatter:
    """Prints the panels of cyclopts' help."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one panel: its title, and a line for each entry."""
        if not panel.entries:
            return
        rows = [(label(entry), text_of(entry)) for entry in panel.entries]
        self._print(console, f"{plain(panel.title)}:", *two_columns(rows, min(console.width, MOST_COLUMNS)))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the usage line."""
        self._print(console, plain(usage), "") if plain(usage) else None

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print what the command does: paragraphs wrapped, its example on a line of its own."""
        width = min(console.width, MOST_COLUMNS)
        for paragraph in filter(None, plain(description).split("\n\n")):
            text = " ".join(paragraph.split())
            lines = [f"  {text}"] if text.startswith("Example: ") else textwrap.wrap(text, width)
            self._print(console, *lines, "")

    def _print(self, console: Console, *lines: str) -> None:
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def two_columns(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Lines of at most `width` characters: labels to the left, their texts to the right, wrapped; behind a long label at once."""
    pairs = list(rows)
    left = min(LEFT_COLUMNS, max(len(name) for name, _ in pairs))
    lines = []
    for name, text in pairs:
        line = f"  {name:<{left}}  {text}".rstrip()
        if len(line) <= width:
            lines.append(line)
            continue
        wrapped = textwrap.wrap(text, max(20, width - left - 4), break_on_hyphens=False)
        if len(name) > left:
            below = " " * (left + 4)
            lines += textwrap.wrap(
                text, width, initial_indent=f"  {name}  ", subsequent_indent=below, break_on_hyphens=False
            )
            continue
        lines += [f"  {name if not place else '':<{left}}  {piece}".rstrip() for place, piece in enumerate(wrapped)]
    return lines


def label(entry: HelpEntry) -> str:
    """The option as it is typed: `--limit INT`, `--[no-]compile`, `STORE`."""
    if entry.positional_label:
        return entry.positional_label
    names = [*entry.positive_names, *entry.positive_shorts]
    if entry.negative_names and names:
        group, dot, key = names[0].removeprefix("--").rpartition(".")
        names[0] = f"--{group}{dot}[no-]{key}"
    return " ".join([*dict.fromkeys(names), *([entry.metavar] if entry.metavar else [])])


def text_of(entry: HelpEntry) -> str:
    """What an option does, and its default in brackets."""
    notes = [f"[{entry.default}]"] if entry.default is not None else []
    return " ".join([plain(entry.description), *notes, *(["(required)"] if entry.required else [])]).strip()


def plain(text: Any) -> str:
    """The characters of a rich text, without the marks of code."""
    text = getattr(text, "primary_renderable", text)
    return str(getattr(text, "plain", getattr(text, "markup", text)) or "").replace("`", "").strip()
