"""Counts, times and foreign texts as people read them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """`45 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def shown(text: str) -> str:
    """An id or path as it is, or quoted when it is empty or holds characters that a terminal would obey instead of showing."""
    return text if text and text.isprintable() else repr(text)


def shift_text(down: float, right: float) -> str:
    """`2.9 px right, 0.4 px up`."""
    return (
        f"{abs(right):.1f} px {'right' if right >= 0 else 'left'}, {abs(down):.1f} px {'down' if down >= 0 else 'up'}"
    )


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class, or `class 3` where the model names none of that index."""
    return str(names[index]) if 0 <= index < len(names) else f"class {index}"


LONGEST_WORD = 1000
"""Characters of a word that are shown: more than a path has that people type, fewer than an id may have."""
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def harmless(text: str, *, lines: bool = True) -> str:
    """A text for a terminal: what a terminal would obey instead of showing is written as `\\x1b`.

    Also what turns the direction of writing, by which a text can show itself in another order than it has. Words of more than
    `LONGEST_WORD` characters are cut.

    Args:
        text: May hold names and errors from anywhere.
        lines: Whether it may have several lines; else a line break counts as something to obey.
    """
    text = _LONG_WORD.sub(lambda word: f"{word[0][:LONGEST_WORD]}... ({len(word[0]):,} characters)", text)
    return "".join(c if c.isprintable() or (lines and c == "\n") else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def sql_refusal(error: Exception) -> str:
    """What a database says against a query, on one line, without the statement and the tables that it was put into."""
    said = re.split(r"\n\s*LINE \d+:|\n\s*Candidate functions:", str(error))[0]
    said = re.sub(r"(Did you mean|Candidate tables:) \"?heatlas_[^\n]*", "", said)
    return " ".join(re.sub(r"\"?\bheatlas_\w+\"?\.", "", said).split())
