"""How a metric's values are spread: bins counted by DuckDB, and where everything goes in a small drawing.

Drawn by hand as SVG in the template. Looked at instead: matplotlib writes 15 to 40 kB per histogram, in fixed colours that do not follow
dark mode; plotly and vega bring 1 to 4 MB of script, and vega-lite one that must be allowed to evaluate texts. A histogram here is
1 to 2 kB, takes its colours from the page, and needs no permission.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..html.texts import figure
from ..store.sql import quoted
from .rows import ReportRows

BINS = 26
WIDTH, HEIGHT, TOP = 280, 86, 6
AT_ONCE = 4
"""Metrics whose quantiles are asked for together: DuckDB holds all their values meanwhile."""
FAR = 3.0
"""Values further out than this many times the middle 99 % are counted at the edge."""


@dataclass(frozen=True)
class Distribution:
    """One metric's drawing, in units of the drawing."""

    bars: list[tuple[float, float, float, float]]
    """x, y, width, height."""
    low: float
    """The axis begins here."""
    high: float
    counts: list[int]
    beyond: int
    """Values outside of the axis, counted in its outermost bins."""
    whole: bool = False
    """A bin for each whole number."""

    @property
    def ticks(self) -> list[tuple[float, str, str]]:
        """x, text and anchor of what is written below the axis."""
        if self.whole:
            ends = dict.fromkeys((self.low + 0.5, self.high - 0.5))
            return [(self.x(value), f"{value:,.0f}", "middle") for value in ends]
        return [(0, figure(self.low, 2), "start"), (WIDTH, figure(self.high, 2), "end")]

    @property
    def labelled(self) -> list[tuple[tuple[float, float, float, float], tuple[float, float, int]]]:
        """Every bar with the values that it stands for, from and to, and how many there are."""
        step = (self.high - self.low) / len(self.counts)
        edges = [
            (self.low + place * step, self.low + (place + 1) * step, count)
            for place, count in enumerate(self.counts)
            if count
        ]
        return list(zip(self.bars, edges, strict=True))

    def x(self, value: float) -> float:
        """Where a value stands, held inside the drawing."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return round(min(max(share, 0.0), 1.0) * WIDTH, 1)


def metric_distributions(rows: ReportRows) -> dict[str, Distribution]:
    """The distribution of every metric, in two passes over the rows."""
    if not rows.metrics:
        return {}
    axes = {name: axis(facts, rows.fact(name).get("range")) for name, facts in _extremes(rows).items()}
    counts = ", ".join(
        f"histogram(least(greatest(floor(({quoted(name)} - {low!r}) / {(high - low)!r} * {bins}), 0), {bins - 1})::INTEGER) "
        f"FILTER ({quoted(name)} IS NOT NULL), count(*) FILTER ({quoted(name)} < {low!r} OR {quoted(name)} > {high!r})"
        for name, (low, high, bins) in axes.items()
    )
    [histograms] = rows.connection.execute(f"SELECT {counts} FROM rows WHERE main").fetchall()
    return {
        name: drawn(low, high, counted(histograms[2 * place], bins), histograms[2 * place + 1], whole=bins != BINS)
        for place, (name, (low, high, bins)) in enumerate(axes.items())
    }


def axis(facts: Mapping[str, Any], allowed: Sequence[Any] | None) -> tuple[float, float, int]:
    """From where to where, and in how many bins.

    Whole numbers get a bin each. The metric's own range is shown where the values fill a good part of it.
    """
    low, high = facts["low"], facts["high"]
    if facts["whole"] and high - low < BINS - 1:
        return low - 0.5, high + 0.5, int(high - low) + 1
    reach = FAR * (facts["most"] - facts["least"])
    low, high = max(low, facts["least"] - reach), min(high, facts["most"] + reach)
    if allowed and all(isinstance(end, int | float) and math.isfinite(end) for end in allowed):
        first, last = allowed
        if first <= low and high <= last and (high - low) > 0.35 * (last - first):
            return float(first), float(last), BINS
    margin = 0.02 * (high - low) or max(abs(low) * 0.05, 1e-6)
    return low - margin, high + margin, BINS


def counted(histogram: Mapping[int, int] | None, bins: int) -> list[int]:
    """Values in every bin, empty ones included."""
    return [int((histogram or {}).get(number, 0)) for number in range(bins)]


def drawn(low: float, high: float, counts: Sequence[int], beyond: int, *, whole: bool = False) -> Distribution:
    """Bars from counts; one that is not empty can be seen."""
    most = max(counts, default=0)
    step = WIDTH / len(counts)
    gap = min(1.5, step * 0.12)
    bars = []
    for place, count in enumerate(counts):
        if count:
            height = max(1.5, (HEIGHT - TOP) * count / most)
            bars.append(
                (round(place * step + gap / 2, 1), round(HEIGHT - height, 1), round(step - gap, 1), round(height, 1))
            )
    return Distribution(bars, low, high, list(counts), beyond, whole)


def _extremes(rows: ReportRows) -> dict[str, dict[str, Any]]:
    extremes: dict[str, dict[str, Any]] = {}
    for start in range(0, len(rows.metrics), AT_ONCE):
        names = rows.metrics[start : start + AT_ONCE]
        asked = ", ".join(
            f"min({column}), max({column}), quantile_cont({column}, [0.005, 0.995]), bool_and({column} = round({column}))"
            for column in map(quoted, names)
        )
        [answer] = rows.connection.execute(f"SELECT {asked} FROM rows WHERE main").fetchall()
        for place, name in enumerate(names):
            low, high, middle, whole = answer[4 * place : 4 * place + 4]
            if low is not None:
                extremes[name] = {"low": low, "high": high, "least": middle[0], "most": middle[1], "whole": whole}
    return extremes
