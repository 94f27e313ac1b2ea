"""A comparison as people read it in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import shortened
from ..text import class_name, counted, shown
from .compare import Comparison

LINES = 12
WIDEST = 110


def comparison_text(comparison: Comparison) -> str:
    """The whole comparison, ready to print."""
    return "\n".join([*_head(comparison), "", *_answers(comparison), "", *_scores(comparison), "", *_moves(comparison)])


def name_of(comparison: Comparison, index: int | None) -> str:
    """A class as people call it."""
    return "none" if index is None else class_name(comparison.pairs.class_names, index)


def _head(comparison: Comparison) -> list[str]:
    pairs = comparison.pairs
    lines = [f"{which}: {side.atlas.uri} ({side.method}, target {side.target})"
             for which, side in zip(("first ", "second"), pairs.sides, strict=True)]  # fmt: skip
    lines.append(f"joined by {pairs.joined}: {counted(len(pairs), 'pair')}")
    for which, alone, some in zip(("first", "second"), pairs.alone, pairs.examples, strict=True):
        if alone:
            lines.append(
                f"  {counted(alone, 'row')} only in the {which} (such as {', '.join(shown(identity) for identity in some)})"
            )
    lines += [f"  note: {note}" for note in pairs.notes]
    lines += [f"  warning: {warning}" for warning in comparison.warnings]
    lines += [f"  differs: {shortened(line, WIDEST)}" for line in comparison.settings[:LINES]]
    if len(comparison.settings) > LINES:
        lines.append(f"  and {len(comparison.settings) - LINES} more differences; --json lists all")
    return lines


def _answers(comparison: Comparison) -> list[str]:
    answers = comparison.predictions
    if not answers.images:
        return ["predictions: none in both"]
    lines = [f"predictions: {answers.changed:,} of {counted(answers.images, 'image')} changed"]
    if answers.labelled:
        first, second = answers.accuracy
        lines.append(f"  accuracy {first:.4f} and {second:.4f} of {answers.labelled:,}; only the first right {answers.only[0]:,}, only the second "
                     f"{answers.only[1]:,} (McNemar p {p_text(answers.p)})")  # fmt: skip
    for group in comparison.decided:
        first, second = group.accuracy
        lines.append(
            f"  {group.name}: accuracy {first:.4f} and {second:.4f} of {group.images:,} (McNemar p {p_text(group.p)})"
        )
    if any(group.name == "with a mark" for group in comparison.decided):
        lines.append(
            "  A mark makes a network right that hangs on it: `heatlas verdict`, or --verdict, measures that with marks removed and pasted."
        )
    for change in answers.changes[:5]:
        lines.append(
            f"  {change['images']:,} x {shown(name_of(comparison, change['first']))} -> {shown(name_of(comparison, change['second']))}"
        )
    if answers.kinds > 5:
        lines.append(f"  and {counted(answers.kinds - 5, 'other kind')} of change")
    return lines


def _scores(comparison: Comparison) -> list[str]:
    if not comparison.metrics:
        return ["no metric in common"]
    rows: list[Sequence[str]] = [
        ("metric", "better", "n", "first", "second", "difference", "95 %", "95 % (all)", "p (Holm)", "favours")
    ]
    for metric in comparison.metrics:
        rows.append((metric["metric"], metric["better"] or "", str(metric["n"]), *(number(metric[key]) for key in ("first_mean", "second_mean", "difference")),
                     f"{number(metric['low'])} to {number(metric['high'])}", f"{number(metric['low_adjusted'])} to {number(metric['high_adjusted'])}", p_text(metric["p_holm"]), metric["favours"]))  # fmt: skip
    lines = table(rows)
    lines.append(f"Pairs that are ok in both; difference is first - second with its bootstrap interval ({comparison.resamples} resamples, seed {comparison.seed}); "
                 "the second interval holds for all metrics together (Bonferroni); p of Wilcoxon's signed-rank test.")  # fmt: skip
    if comparison.uncompared:
        lines.append(
            f"Not compared, because one run lacks them, defines them differently, or no pair has them in both: {', '.join(comparison.uncompared)}."
        )
    return lines


def _moves(comparison: Comparison) -> list[str]:
    if comparison.moved is None:
        return ["explanations: a run stored no maps, so movement cannot be measured"]
    far = comparison.distances
    if not len(far):
        return ["explanations: no pair has both maps and the same prediction"]
    lines = [f"explanations where the prediction stayed ({counted(len(far), 'pair')}): on average {far.mean():.1%} of a map's mass lies elsewhere, "
             f"at most {far.max():.1%}; the largest movements:"]  # fmt: skip
    rows: list[Sequence[str]] = [("id", "prediction", "elsewhere", "centre moved", "first", "second")]
    for pair in comparison.most[:LINES]:
        rows.append((shortened(shown(pair["id"]), 60), shown(name_of(comparison, pair["prediction"])), f"{pair['distance']:.1%}",
                     "" if pair["shift"] is None else f"{pair['shift']:.1%}", number(pair["first_confidence"]), number(pair["second_confidence"])))  # fmt: skip
    return [*lines, *table(rows)]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def p_text(value: float | None) -> str:
    """A p-value with as many digits as say something."""
    if value is None:
        return ""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def change_rows(comparison: Comparison) -> list[Mapping[str, Any]]:
    """Changes of prediction with the classes' names."""
    return [
        {**change, "from": name_of(comparison, change["first"]), "to": name_of(comparison, change["second"])}
        for change in comparison.predictions.changes
    ]
