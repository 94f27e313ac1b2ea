"""Writes docs/case-study.md and its plot from the explained tiles; every figure and every sentence follows from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import heatlas
import matplotlib as mpl
import numpy as np
import pandas as pd
from heatlas.pipeline.report.classes import suspicion_rule
from heatlas.pipeline.report.rows import CHANCE, ReportRows
from heatlas.pipeline.report.scores import run_scores

mpl.use("Agg")
from matplotlib import pyplot as plt

from ..page_part import DOCS

PLOT = "case-study.png"
FEW = 4
"""Correct predictions below which a class is not judged."""


@dataclass(frozen=True)
class Defect:
    """Where a defect lies."""

    area: float
    """Its share of the image."""
    in_border: float
    """Share of its pixels in the outer tenth of the image on each side."""


def write_page(atlas: heatlas.Atlas, defects: Mapping[str, Defect], budget: int) -> None:
    """The page and the plot."""
    frame = atlas.to_pandas(["id", "label", "prediction", "confidence", "ebpg", "bbox", "border_share", "drop_pct", "n_forwards"],
                            where="status = 'ok' AND target = prediction")  # fmt: skip
    names = np.array(atlas.class_names)
    frame["class"] = names[frame["label"]]
    frame["said"] = names[frame["prediction"]]
    frame["correct"] = frame["label"] == frame["prediction"]
    frame["area"] = [defects[name].area if name in defects else np.nan for name in frame["id"]]
    frame["defect_border"] = [defects[name].in_border if name in defects else np.nan for name in frame["id"]]
    frame["chance"] = frame["id"].map(chance_baselines(atlas))
    frame["off_object"] = frame["correct"] & (frame["ebpg"] < frame["chance"])
    table = pd.DataFrame([facts(name, frame[frame["class"] == name]) for name in names])
    queue = atlas.curate(["shortcut"]).to_pandas()
    clusters = atlas.cluster(min_size=3).clusters.to_pandas()
    plot(atlas, frame, names, DOCS / PLOT)
    (DOCS / "case-study.md").write_text(page(frame, table, queue, clusters, budget), encoding="utf-8")
    print(f"{DOCS / 'case-study.md'}, {DOCS / PLOT} ({(DOCS / PLOT).stat().st_size / 1e3:.0f} kB)")


def chance_baselines(atlas: heatlas.Atlas) -> dict[str, float]:
    """EBPG of a random map by image, as the report judges by it: measured there, else the mean of the label."""
    rows = ReportRows.of(atlas)
    rule = suspicion_rule(rows, run_scores(rows, resamples=1))
    assert rule is not None
    records = rows.ask(
        f"SELECT id, coalesce({CHANCE}, {rule.threshold!r}) AS chance FROM rows WHERE main AND ebpg IS NOT NULL"
    )
    return {record["id"]: record["chance"] for record in records}


def facts(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    """What is known of a class."""
    correct = rows[rows["correct"]]
    judged = correct.dropna(subset=["ebpg", "chance"])
    return {
        "name": name, "images": len(rows), "correct": int(rows["correct"].sum()), "judged": len(judged), "off_object": int(judged["off_object"].sum()),
        "ebpg": judged["ebpg"].mean(), "chance": judged["chance"].mean(), "lift": (judged["ebpg"] / judged["chance"]).median(),
        "border": correct["border_share"].mean(),
        "defect_border": judged["defect_border"].mean(), "drop": correct["drop_pct"].mean(),
    }  # fmt: skip


def verdict(row: pd.Series) -> str:
    """What the figures bear out of a class, in words."""
    if not row["judged"]:
        return "no defect: a mask cannot judge it"
    if row["judged"] < FEW:
        return f"only {row['judged']} correct predictions: not judged"
    share = row["off_object"] / row["judged"]
    if share >= 0.5:
        return "**correct, off-object**, mostly"
    if share > 0.2 or row["lift"] < 1.5:
        return "partly off the defect"
    return "on the defect"


def page(frame: pd.DataFrame, table: pd.DataFrame, queue: pd.DataFrame, clusters: pd.DataFrame, budget: int) -> str:
    correct, judged, off_object = (
        int(table["correct"].sum()),
        int(table["judged"].sum()),
        int(table["off_object"].sum()),
    )
    worst = (
        table[table["judged"] >= FEW]
        .assign(share=lambda rows: rows["off_object"] / rows["judged"])
        .sort_values(["share", "lift"], ascending=[False, True])
    )
    named = [
        f"{row['name']} ({row['off_object']} of {row['judged']})" for _, row in worst.iterrows() if row["off_object"]
    ]
    lines = [
        "# Case study: do the classes of a defect detector look at the defect?",
        "",
        "Written by `python -m bench case_study`, whose data are not part of the project (magnetic tiles with one mask per defect; only numbers,",
        "mean maps and plots are shown here).",
        "",
        f"MobileNetV2 with a head for six kinds of tiles, {len(frame)} held-out tiles (up to {int(table['images'].max())} of each class, chosen by a",
        f"digest of their names), explained by SISE with `--budget {budget}`: {frame['n_forwards'].mean():.0f} forwards per image where all masks would take",
        "many hundreds. That is a small sample and a small budget, chosen because processors were short: read counts, not percentages. A map of",
        "224x224 made of 7x7 and 14x14 blocks is wider than a crack or a hole, so a low EBPG alone says little there; less than chance does.",
        "",
        f"{correct} of {len(frame)} predictions are correct. A correct prediction counts as *off-object*, as in the report, when less of its map lies on the defect than of a",
        f"random map: {off_object} of the {judged} correct predictions of defects"
        + (f"; {', '.join(named)}." if named else "."),
        "",
        "| class | images | correct | on the defect (EBPG) | random map | median of their ratio | map in the border | defect in the border | off-object | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for _, row in table.iterrows():
        on = [f"{row['ebpg']:.3f}", f"{row['chance']:.3f}", f"{row['lift']:.1f}"] if row["judged"] else ["", "", ""]
        off_object_cell = f"{row['off_object']} of {row['judged']}" if row["judged"] else ""
        border, of_defect = ("" if np.isnan(row[name]) else f"{row[name]:.2f}" for name in ("border", "defect_border"))
        lines.append(
            f"| {row['name']} | {row['images']} | {row['correct']} | {' | '.join(on)} | {border} | {of_defect} | {off_object_cell} | {verdict(row)} |"
        )
    lines += [
        "",
        f"![Mean maps of the correct predictions by class, and evidence on the defect against its area]({PLOT})",
        "",
    ]
    lines += [
        "In the border: share of the map, and of the defect, in the outer tenth of the image on each side; an even map has 0.36.",
        "",
    ]
    lines += ["## What the commands say", "", *queue_lines(queue, table, correct)]
    lines += ["", "`heatlas cluster --min-size 3`, the first five rows of its table:", ""]
    lines += [f"- {row['reason']}" for _, row in clusters.head(5).iterrows()]
    wrong = frame[~frame["correct"]]
    if len(wrong):
        lines += [
            "",
            "Wrong predictions: "
            + ", ".join(f"{row['class']} called {row['said']} ({row['confidence']:.2f})" for _, row in wrong.iterrows())
            + ".",
        ]
    return "\n".join(lines) + "\n"


def queue_lines(queue: pd.DataFrame, table: pd.DataFrame, correct: int) -> list[str]:
    """What the shortcut queue lists, and what the masks know of it."""
    if not len(queue):
        return ["`heatlas curate --recipe shortcut` lists nothing."]
    counts = ", ".join(f"{count} {name}" for name, count in queue["label"].value_counts().items())
    lines = [f"`heatlas curate --recipe shortcut` lists {len(queue)} of the {correct} correct predictions ({counts}): those off the defect or in the border",
             "of the image, in classes where these are more frequent than in the others. It does not know where a class's defects usually lie;"]  # fmt: skip
    named = table[table["name"].isin(queue["label"])]
    shares = ", ".join(f"{row['defect_border']:.2f} for {row['name']}" for _, row in named.iterrows())
    lines += [
        f"the table does (share of the defect in the border: {shares}), so read a border's share beside it. The first:",
        "",
    ]
    return lines + [f"- {row['id'].rsplit('.', 1)[0]}: {row['reason']}" for _, row in queue.head(3).iterrows()]


def plot(atlas: heatlas.Atlas, frame: pd.DataFrame, names: np.ndarray, path: Path) -> None:
    """Mean maps above, EBPG against area below."""
    figure = plt.figure(figsize=(9.5, 5.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.5])
    for axis, name in zip(above.subplots(1, len(names)), names, strict=True):
        rows = frame[(frame["class"] == name) & frame["correct"]]
        axis.set_title(f"{name} ({len(rows)})", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        if len(rows):
            maps = np.stack(
                [
                    atlas.maps([id], target=int(target))[0]
                    for id, target in zip(rows["id"], rows["prediction"], strict=True)
                ]
            )
            axis.imshow(maps.mean(axis=0), cmap="inferno", vmin=0)
    axis = below.subplots()
    limits = (0.0005, 1)
    axis.plot(limits, limits, color="#999999", lw=1, label="an evenly spread map")
    for name in names:
        rows = frame[(frame["class"] == name) & frame["correct"]].dropna(subset=["ebpg", "area"])
        if len(rows):
            axis.scatter(rows["area"], rows["ebpg"].clip(lower=limits[0]), s=26, label=name, alpha=0.8)
    axis.set(
        xscale="log",
        yscale="log",
        xlim=limits,
        ylim=limits,
        xlabel="the defect's share of the image",
        ylabel="share of the map on the defect",
    )
    axis.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)
