"""The summary of a run's scores as people read it: which average it is, what chance gets, and whether the sanity check passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ...engine.metrics.chance_maps import CHANCE_MAPS
from ...engine.metrics.sanity import SANITY
from ..text import counted, shown
from .one_row_per_image import RULE

CHANCE_MAP_TEXTS = {"random": "a random map", "gaussian": "a centred Gaussian"}
OTHER_AVERAGES = {
    "adcc": "the mean of per-image values; Poppi et al. print the harmonic mean of the three means",
    "pointing_hit": "the share of images; TorchRay prints the mean of the classes' shares",
    "increase": "the share of images",
    "miou": "the mean of per-image overlaps, not the overlap of all pixels",
}
"""What the literature averages otherwise."""
HALF = 0.5
"""Mean rank correlation, of either sign, from which the maps are said to hardly depend on the weights."""


def format_summary(out: str, statuses: Mapping[str, int], table: pa.Table, *, resamples: int, seed: int) -> str:
    """The table of `score_summary` for people, ready to print."""
    records = table.to_pylist()
    lines = [
        f"{out}: {counted(sum(statuses.values()), 'row')} ({', '.join(f'{name} {n}' for name, n in statuses.items())})"
    ]
    for group in dict.fromkeys(record["group"] for record in records):
        of_group = [record for record in records if record["group"] == group]
        if group is not None:
            lines += ["", f"{shown(group)}: {counted(of_group[0]['rows'], 'row')}"]
        lines += score_lines(of_group)
    if not any(record["n"] for record in records):
        return "\n".join([*lines, "no row has a metric"])
    lines += ["", f"Each mean is over the n images that have a value, in brackets its 95 % bootstrap interval ({resamples} resamples of "
              f"images, seed {seed}); {RULE}."]  # fmt: skip
    if any(record["chance_n"] for record in records):
        lines.append("own, random, gaussian: on the images on which chance maps were measured, the mean of the run's maps, of a random map "
                     "and of a centred Gaussian.")  # fmt: skip
    present = {record["metric"] for record in records if record["n"]}
    lines += [f"{name}: {text}." for name, text in OTHER_AVERAGES.items() if name in present]
    if len({record["group"] for record in records}) == 1:
        lines += verdicts(records)
    return "\n".join(lines)


def score_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """One metric a line, with headings; nothing for a group without values."""
    there = [record for record in records if record["n"]]
    with_chance = any(record["chance_n"] for record in there)
    rows = [("metric", "better", "n", "mean", "", *(("images", "own", *CHANCE_MAPS) if with_chance else ()))]
    for record in there:
        row = (
            record["metric"],
            record["better"] or "",
            str(record["n"]),
            number(record["mean"]),
            interval(record["low"], record["high"]),
        )
        rows.append((*row, *(chance_cells(record) if with_chance else ())))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = (0, 1, 4)
    return [
        ("  " + "  ".join(text.ljust(width) if place in left else text.rjust(width) for place, (text, width) in enumerate(zip(row, wide, strict=True)))).rstrip()
        for row in rows
    ] if there else []  # fmt: skip


def chance_cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    if not record["chance_n"]:
        return ("",) * (2 + len(CHANCE_MAPS))
    return (
        str(record["chance_n"]),
        number(record["chance_own"]),
        *(number(record[chance_map]) for chance_map in CHANCE_MAPS),
    )


def verdicts(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Verdicts of the chance baselines and the sanity check, a sentence each; for one group."""
    summaries = list(records)
    sane = [record for record in summaries if record["metric"] == SANITY and record["n"]]
    return [*chance_sentences(summaries), *(sanity_sentence(record["mean"], record["n"]) for record in sane)]


def chance_sentences(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each chance baseline, the metrics in which the run's maps are no better on the same images."""
    judged = [record for record in records if record["chance_n"] and record["better"] in ("higher", "lower")]
    lines = []
    for chance_map in CHANCE_MAPS if judged else ():
        there = [record for record in judged if record[chance_map] is not None]
        worse = [
            record["metric"]
            for record in there
            if not is_better(record["chance_own"], record[chance_map], record["better"])
        ]
        images = counted(max(record["chance_n"] for record in judged), "image")
        verdict = (
            f"no better in {', '.join(worse)}" if worse else f"better in all {len(there)} metrics that have a direction"
        )
        lines.append(f"Against {CHANCE_MAP_TEXTS[chance_map]} on {images}: {verdict}.")
    return lines


def is_better(value: float, other: float, better: str) -> bool:
    return value > other if better == "higher" else value < other


def sanity_sentence(mean: float, images: int) -> str:
    """What the correlation with the maps of a randomised model says."""
    says = "maps change when the weights are randomised"
    if abs(mean) >= HALF:
        says = (
            "maps hardly change when the weights are randomised, so they may show the image's edges and not the model"
        )
    return f"Sanity check: {says}: mean rank correlation {mean:.2f} on {counted(images, 'image')} (1: the same maps; 0: unrelated)."


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
