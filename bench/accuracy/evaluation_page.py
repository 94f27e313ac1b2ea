"""The page that `python -m bench evaluation` writes: tables with intervals, and where SISE does not win, from paired tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from heatlas.engine.metrics import METRICS
from heatlas.pipeline.statistics.bootstrap import LEVEL, RESAMPLES, BucketSums
from heatlas.pipeline.statistics.paired_tests import SIGNIFICANT, favoured, holm, row_of
from heatlas.pipeline.statistics.summary_text import interval, number
from heatlas.statuses import OK

from ..page_part import DOCS, machine

PAGE = DOCS / "evaluation.md"
HEADER = """<!-- Made by `python -m bench evaluation`; do not edit, run it again. -->
# {title}

What the maps of SISE and of the other methods get, beside maps that know nothing of the model, on real images with ground truth. The
network is torchvision's MobileNetV2 with ImageNet weights, input 224 x 224; the class explained is the predicted one, the same for
all methods. Every map goes through the same measuring code; methods and their settings are described in [methods.md](methods.md),
every metric is defined in [metrics.md](metrics.md).

- Methods run with their defaults but for what stands behind the name. Random map: every pixel uniform. Centred Gaussian: sigma a
  quarter of each side.
- Each number is the mean over the images to which the method gave a map, in brackets its {level:.0f} % bootstrap interval ({resamples}
  resamples of images). The best mean of a column is bold, among the methods that gave every image a map: the images that a method
  leaves out may be the hard ones.
- Forwards and backwards are those for the map, the prediction included. Seconds are of one thread, all methods one after the other on
  the same few images: good for orders of magnitude, and for ratios.
- Batch norms are folded into the convolutions before them, which changes a network's last digits.
- Whether one is better than another by more than chance is what the paired tests say: Wilcoxon's signed-rank test per metric
  over the images that both have, Holm's correction over the metrics of a comparison, level {significant}. In brackets the effect size: the
  matched-pairs rank-biserial correlation, positive where SISE's value is larger. Few images show few differences: "no difference
  shown" is not "no difference".
- `complexity_l1` depends on how maps are scaled (SISE's by the number of blocks, a CAM's by its maximum): do not compare it here.
- The images have no clear licence and are not part of the project; the commands need `../shared/data`.

Measured on {machine}, shared with other work, {precision} forwards, with `{command}`.
"""
NOT_TRIED: dict[str, Any] = {"values": {}}
NOT_COMPARABLE = {"complexity_l1"}
"""Depends on the map's scale."""


@dataclass(frozen=True)
class Scores:
    """Per-image scores of several methods on one data set."""

    title: str
    asked: int
    """Images that were asked for."""
    by_method: dict[str, dict[str, dict[str, Any]]]
    """Method -> id -> `status`, `forwards`, `values`; methods without any of the ids are left out."""
    ids: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    """Per image, of the methods that were timed."""

    def __post_init__(self) -> None:
        some = {name: result for name, result in self.by_method.items() if not result.keys().isdisjoint(self.ids)}
        object.__setattr__(self, "by_method", some)

    @property
    def tried(self) -> list[str]:
        """Images on which some method was tried."""
        return [id for id in self.ids if any(id in result for result in self.by_method.values())]

    def count(self, method: str) -> int:
        """On how many of them this one was."""
        return sum(id in self.by_method[method] for id in self.tried)

    def values(self, method: str, metric: str) -> np.ndarray:
        """`(image,)` over the images that were tried; NaN where the method was not, gave no map, or the map has no such value."""
        results = [self.by_method[method].get(id, NOT_TRIED)["values"].get(metric) for id in self.tried]
        return np.array([np.nan if value is None else value for value in results], dtype=np.float64)

    def without_map(self, method: str) -> Counter[str]:
        """Images to which the method gave no map, by status."""
        results = [self.by_method[method][id]["status"] for id in self.tried if id in self.by_method[method]]
        return Counter(status for status in results if status != OK)

    def whole(self, method: str) -> bool:
        """Whether the method gave every image a map."""
        return self.count(method) == len(self.tried) and not self.without_map(method)

    @property
    def metrics(self) -> list[str]:
        """Those that some method has, with a better end first."""
        names = {name for result in self.by_method.values() for record in result.values() for name in record["values"]}
        known = [name for name in METRICS if name in names]
        return sorted(known, key=lambda name: METRICS[name].better == "neither")


def page(
    scores: Sequence[Scores], precision: str, title: str = "Evaluation", command: str = "python -m bench evaluation"
) -> str:
    """The whole page; data sets without scores are left out."""
    head = HEADER.format(
        level=100 * LEVEL, resamples=RESAMPLES, significant=SIGNIFICANT, machine=machine(), precision=precision, title=title,
        command=command,
    )  # fmt: skip
    return head + "".join(section(data_set) for data_set in scores if data_set.tried)


def section(scores: Scores) -> str:
    """One data set: what was run, the tables, and the comparisons."""
    tried, names = scores.tried, list(scores.by_method)
    missing = {name: scores.without_map(name) for name in names}
    few = f" of the {scores.asked} asked for" if len(tried) < scores.asked else ""
    lines = [f"\n## {scores.title}\n", f"{len(tried)} images{few}."]
    for name in names:
        if scores.count(name) < len(tried):
            lines.append(f"{name}: {scores.count(name)} of them only.")
    for name, statuses in missing.items():
        if statuses:
            causes = ", ".join(f"{status} {many}" for status, many in statuses.most_common())
            lines.append(f"{name} gave {statuses.total()} of them no map ({causes}).")
    lines += ["\n### Cost\n", *cost_table(scores)]
    for title, metrics in groups(scores).items():
        lines += [f"\n### {title}\n", *metric_table(scores, metrics)]
    ours = next((name for name in names if name.lower().startswith("sise")), None)
    lines.append("\n### Where SISE wins, and where it does not\n")
    lines += [verdict(scores, ours, rival) for rival in names if ours is not None and rival != ours]
    return "\n".join(lines) + "\n"


def cost_table(scores: Scores) -> list[str]:
    """A row per method: images with a map, passes and seconds."""
    lines = [
        "| method | images with a map | forwards per image | backwards per image | seconds per image |",
        "|---|---|---|---|---|",
    ]
    for name in scores.by_method:
        with_map = scores.count(name) - scores.without_map(name).total()
        forwards, backwards = (
            f"{float(np.mean(costs(scores, name, what))):,.0f}" for what in ("forwards", "backwards")
        )
        seconds = number(scores.seconds[name]) if name in scores.seconds else "-"
        lines.append(f"| {name} | {with_map} | {forwards} | {backwards} | {seconds} |")
    return lines


def groups(scores: Scores) -> dict[str, list[str]]:
    """The metrics by what they ask of."""
    titles = {
        "model": "What the model makes of it", "truth": "Against the ground truth", "map": "How simple the map is",
    }  # fmt: skip
    results = {
        title: [name for name in scores.metrics if METRICS[name].needs == needs and METRICS[name].better != "neither"]
        for needs, title in titles.items()
    }
    results["What the map looks like"] = [name for name in scores.metrics if METRICS[name].better == "neither"]
    return {title: metrics for title, metrics in results.items() if metrics}


def metric_table(scores: Scores, metrics: Sequence[str]) -> list[str]:
    """A row per method, a column per metric."""
    heads = [
        f"`{name}` ({METRICS[name].better})" if METRICS[name].better != "neither" else f"`{name}`" for name in metrics
    ]
    columns = [column(scores, name) for name in metrics]
    rows = [
        f"| {name} | " + " | ".join(cells[place] for cells in columns) + " |"
        for place, name in enumerate(scores.by_method)
    ]
    return ["| method | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|", *rows]


def column(scores: Scores, metric: str) -> list[str]:
    """The mean and its interval for every method, the best in bold."""
    better = METRICS[metric].better
    means, cells = [], []
    for name in scores.by_method:
        values = scores.values(name, metric)
        sums = BucketSums.of(scores.tried, values[:, None])
        low, high = (None if np.isnan(end[0]) else float(end[0]) for end in sums.intervals())
        means.append(float(sums.means[0]))
        cells.append("-" if np.isnan(means[-1]) else f"{number(means[-1])} {interval(low, high)}".strip())
    judged = [mean if scores.whole(name) else np.nan for name, mean in zip(scores.by_method, means, strict=True)]
    if better != "neither" and metric not in NOT_COMPARABLE and not np.isnan(judged).all():
        best = np.nanmax(judged) if better == "higher" else np.nanmin(judged)
        cells = [f"**{cell}**" if mean == best else cell for cell, mean in zip(cells, judged, strict=True)]
    return cells


def costs(scores: Scores, method: str, what: str) -> list[float]:
    """Of each image; 0 where an older record does not say."""
    return [result.get(what, 0) for id, result in scores.by_method[method].items() if id in scores.tried]


def verdict(scores: Scores, ours: str, rival: str) -> str:
    """In which metrics the one is better, worse, or not shown to differ."""
    ids = np.array(scores.tried, dtype=object)
    rows = []
    for metric in scores.metrics:
        fact = {"better": METRICS[metric].better}
        first, second = scores.values(ours, metric), scores.values(rival, metric)
        if fact["better"] == "neither" or metric in NOT_COMPARABLE or not np.any(~np.isnan(first) & ~np.isnan(second)):
            continue
        rows.append(row_of(metric, fact, ids, first, second, 1, 0))
    groups: dict[str, list[str]] = {"first": [], "second": [], "neither": []}
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        groups[favoured(row["effect"], p, row["better"])].append(f"`{row['metric']}` ({row['effect']:+.2f})")
    said = [
        ("better in", groups["first"]),
        ("**worse in**", groups["second"]),
        ("no difference shown in", groups["neither"]),
    ]
    parts = "; ".join(f"{text} {', '.join(named) if named else 'none'}" for text, named in said)
    return f"- **{ours}** against {rival}: {parts}."
