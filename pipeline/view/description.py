"""Describe a store to the page: columns with their histograms, classes, queues, clusters, and how maps are coloured."""

from __future__ import annotations

from typing import Any

from ..._version import __version__
from ..pictures.overlay import INFERNO
from ..report.plain_words import name_of, sentence_of
from ..report.rows import CONFIDENCE
from .beside import DELTA, RELATIONS
from .filters import OUTCOMES
from .selection import Selections
from .view_rows import ViewRows

FIRST = (
    "ebpg",
    "drop_pct",
    "border_share",
    "miou",
    "insertion_auc",
    "deletion_auc",
    "label_overlap",
    "top_area",
    "gini",
)
"""Columns whose histograms are open at first, after the confidence."""
OPEN = 5
OPEN_DELTAS = 2
"""Differences to a second store that are open at first."""
WORTH_A_LOOK = 1e-3
"""Largest difference from which its histogram is open at first: the confidences of one model differ in their last digits only."""
MANY_FILES = 64
"""Files from which `heatlas compact` is worth its time."""


def describe_store(table: ViewRows, selections: Selections, *, decisions: bool, other: str = "") -> dict[str, Any]:
    """Everything that the page needs once.

    Args:
        table: The rows.
        selections: For the counts over all rows.
        decisions: Whether decisions can be recorded.
        other: The second store's place; empty without one.
    """
    atlas, run = table.atlas, table.atlas.run
    queues = table.ask("SELECT queue AS name, count(DISTINCT n) AS rows FROM queued GROUP BY queue ORDER BY queue")
    clusters = table.ask(
        "SELECT cluster AS name, count(DISTINCT n) AS rows FROM clustered GROUP BY cluster ORDER BY cluster"
    )
    statuses = table.ask(
        "SELECT status AS name, count(*) AS rows FROM items WHERE main GROUP BY status ORDER BY rows DESC, status"
    )
    shape = atlas.metadata.get("map")
    opened = [CONFIDENCE, *(name for name in FIRST if name in table.axes)][:OPEN]
    opened += (
        [name for name, (_, reach, _) in table.axes.items() if name.startswith(DELTA) and reach >= WORTH_A_LOOK][
            :OPEN_DELTAS
        ]
        if other
        else []
    )
    return {
        "version": __version__,
        "uri": atlas.uri,
        "model": str(run["settings"].get("model") or ""),
        "method": table.method,
        "methods": [table.method, *table.rows.others],
        "rows": table.total,
        "images": table.images,
        "classes": list(table.class_names),
        "confidence": CONFIDENCE,
        "columns": [
            {"name": name, "title": _title(table, name), "text": _sentence(table, name),
             "low": low, "high": high, "bins": bins, "open": name in opened}
            for name, (low, high, bins) in table.axes.items()
        ],
        "outcomes": list(OUTCOMES),
        "off_object": f"A correct prediction {table.rule.text}." if table.rule else "",
        "statuses": statuses,
        "queues": queues,
        "clusters": [{**cluster, "title": _cluster_title(table, cluster["name"])} for cluster in clusters],
        "map": [shape["height"], shape["width"]] if shape else None,
        "colours": [list(colour) for colour in INFERNO],
        "decisions": decisions,
        "other": other,
        "relations": list(RELATIONS) if other else [],
        "notes": [*table.memberships.notes, *_advice(table)],
    }  # fmt: skip


def _title(table: ViewRows, name: str) -> str:
    if (metric := name.removeprefix(DELTA)) != name and metric in table.deltas:
        return f"{_title(table, metric)}: second minus first store"
    return "Confidence" if name == CONFIDENCE else name_of(name)


def _sentence(table: ViewRows, name: str) -> str:
    if (metric := name.removeprefix(DELTA)) != name and metric in table.deltas:
        return f"For the same image and explained class: the value in the second store minus that in the first. {_sentence(table, metric)}"
    if name == CONFIDENCE:
        return "The model's confidence in the explained class, from 0 to 1."
    return sentence_of(name, table.rows.fact(name))


def _cluster_title(table: ViewRows, name: str) -> str:
    index, _, number = name.partition("/")
    return f"{table.rows.class_name(int(index))}, cluster {number}"


def _advice(table: ViewRows) -> list[str]:
    files = len(table.atlas.files)
    if files < MANY_FILES:
        return []
    return [
        f"The store has {files:,} files; `heatlas compact {table.atlas.uri}` merges them, and maps are then read faster."
    ]
