"""A verdict as people read it in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ..text import counted
from .judge import Verdict
from .lines import Line


def verdict_text(verdict: Verdict) -> str:
    """The headline, a line for every number, and what to know about them."""
    judged = [line for line in verdict.lines if line.judged]
    shown = [line for line in verdict.lines if not line.judged]
    text = [
        verdict.headline,
        f"{len(verdict.before)} models before, {len(verdict.after)} after, {counted(verdict.split_images, 'test image')} locked {verdict.locked}",
        "",
        *_table(judged),
    ]
    if shown:
        text += ["", "shown, not judged:", *_table(shown)]
    text += [
        "", "after - before with its 95 % interval over images and seeds; better or worse where p < 0.05 after Holm's correction for all lines of its table.",
    ]  # fmt: skip
    return "\n".join([*text, *(f"note: {note}" for note in verdict.notes)])


def _table(lines: Sequence[Line]) -> list[str]:
    rows = [("", "images", "before", "after", "difference", "95 %", "p (Holm)", "")]
    for line in lines:
        measured = line.measured
        numbers = (f"{measured.first:.3f}", f"{measured.second:.3f}", f"{measured.difference:+.3f}")
        note = f" ({line.note})" if line.note else ""
        rows.append((line.name, f"{measured.images:,}", *numbers, f"{measured.low:+.3f} to {measured.high:+.3f}", f"{line.p_holm:.4f}", line.word + note))  # fmt: skip
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
