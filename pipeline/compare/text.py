"""A comparison as people read it in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..text import counted, shortened, shown
from .compare import Comparison

LINES = 12
WIDEST = 110


def comparison_text(found: Comparison) -> str:
    """The whole comparison, ready to print."""
    return "\n".join([*_head(found), "", *_answers(found), "", *_scores(found), "", *_moves(found)])


def name_of(found: Comparison, index: int | None) -> str:
    """A class as people call it."""
    names = found.pairs.sides[0].atlas.class_names
    return "none" if index is None else str(names[index]) if 0 <= index < len(names) else f"class {index}"


def _head(found: Comparison) -> list[str]:
    pairs = found.pairs
    lines = [f"{which}: {side.atlas.uri} ({side.method}, target {side.target})"
             for which, side in zip(("first ", "second"), pairs.sides, strict=True)]  # fmt: skip
    lines.append(f"joined by {pairs.joined}: {counted(len(pairs), 'pair')}")
    for which, alone, some in zip(("first", "second"), pairs.alone, pairs.examples, strict=True):
        if alone:
            lines.append(
                f"  {counted(alone, 'row')} only in the {which} (such as {', '.join(shown(one) for one in some)})"
            )
    lines += [f"  note: {one}" for one in pairs.notes]
    lines += [f"  differs: {shortened(one, WIDEST)}" for one in found.settings[:LINES]]
    if len(found.settings) > LINES:
        lines.append(f"  and {len(found.settings) - LINES} more differences; --json lists all")
    return lines


def _answers(found: Comparison) -> list[str]:
    answers = found.predictions
    if not answers.images:
        return ["predictions: none in both"]
    lines = [f"predictions: {answers.changed:,} of {counted(answers.images, 'image')} changed"]
    if answers.labelled:
        first, second = answers.accuracy
        lines.append(f"  accuracy {first:.4f} and {second:.4f} of {answers.labelled:,}; only the first right {answers.only[0]:,}, only the second "
                     f"{answers.only[1]:,} (McNemar p {p_text(answers.p)})")  # fmt: skip
    for one in answers.changes[:5]:
        lines.append(
            f"  {one['images']:,} x {shown(name_of(found, one['first']))} -> {shown(name_of(found, one['second']))}"
        )
    if answers.kinds > 5:
        lines.append(f"  and {counted(answers.kinds - 5, 'other kind')} of change")
    return lines


def _scores(found: Comparison) -> list[str]:
    if not found.metrics:
        return ["no metric in common"]
    rows: list[Sequence[str]] = [
        ("metric", "better", "n", "first", "second", "difference", "95 %", "p (Holm)", "favours")
    ]
    for one in found.metrics:
        rows.append((one["metric"], one["better"] or "", str(one["n"]), *(number(one[key]) for key in ("first_mean", "second_mean", "difference")),
                     f"{number(one['low'])} to {number(one['high'])}", p_text(one["p_holm"]), one["favours"]))  # fmt: skip
    lines = table(rows)
    lines.append(f"Pairs that are ok in both; difference is first - second with its bootstrap interval ({found.resamples} resamples, seed {found.seed}); "
                 "p of Wilcoxon's signed-rank test.")  # fmt: skip
    if found.uncompared:
        lines.append(
            f"Not compared, because one run lacks them or defines them differently: {', '.join(found.uncompared)}."
        )
    return lines


def _moves(found: Comparison) -> list[str]:
    if found.moved is None:
        return ["explanations: a run stored no maps, so nothing is known of their way"]
    far = found.distances
    if not len(far):
        return ["explanations: no pair has both maps and the same prediction"]
    lines = [f"explanations where the prediction stayed ({counted(len(far), 'pair')}): on average {far.mean():.1%} of a map's mass lies elsewhere, "
             f"at most {far.max():.1%}; the farthest:"]  # fmt: skip
    rows: list[Sequence[str]] = [("id", "prediction", "elsewhere", "centre moved", "first", "second")]
    for one in found.most[:LINES]:
        rows.append((shortened(shown(one["id"]), 60), shown(name_of(found, one["prediction"])), f"{one['distance']:.1%}",
                     "" if one["shift"] is None else f"{one['shift']:.1%}", number(one["first_score"]), number(one["second_score"])))  # fmt: skip
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


def change_rows(found: Comparison) -> list[Mapping[str, Any]]:
    """Changes of prediction with the classes' names."""
    return [
        {**one, "from": name_of(found, one["first"]), "to": name_of(found, one["second"])}
        for one in found.predictions.changes
    ]
