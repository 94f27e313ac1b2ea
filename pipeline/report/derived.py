"""What other commands left beside the store, if they ran: clusters of maps and review queues. Bounded, and read as foreign tables."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..curate.recipe import load_recipes
from ..html.pictures import Pictures, Stored
from ..storage.location import child, locate, names_in
from .cards import Card, CardMaker
from .rows import ReportRows

CLUSTERS = "clusters"
CURATION = "curation"
ENDING = ".parquet"
SHOWN = 12
"""Clusters with their pictures."""
TYPICAL = 4
QUEUES = 12
FIRST = ("shortcut", "label_suspicion", "no_evidence")
"""Queues that come before the others."""
LARGEST = 64_000_000
"""Bytes of a file that is still read."""


@dataclass(frozen=True)
class MapCluster:
    """Maps that put their evidence in the same place."""

    name: str
    size: int
    separation: float | None
    reason: str
    map: Stored | None
    members: list[dict[str, Any]]
    cards: list[Card] = field(default_factory=list)


@dataclass(frozen=True)
class Queue:
    """Rows that a recipe found worth a look, the most urgent first."""

    name: str
    purpose: str
    """What it looks for; empty for a recipe of the user's own."""
    key: str
    """Name of its section in the page."""
    count: int
    rows: list[dict[str, Any]]
    reasons: dict[str, str]
    by_label: dict[int, int]
    """Images in it by label."""
    cards: list[Card] = field(default_factory=list)


@dataclass(frozen=True)
class Derived:
    """Both, and what could not be read."""

    clusters: list[MapCluster]
    cluster_count: int
    queues: list[Queue]
    notes: list[str]

    @property
    def wanted(self) -> list[dict[str, Any]]:
        """All rows that are shown."""
        return [
            row
            for group in (*self.clusters, *self.queues)
            for row in (group.members if isinstance(group, MapCluster) else group.rows)
        ]


def read_derived(rows: ReportRows, pictures: Pictures, limit: int) -> Derived:
    """Read what is there."""
    notes: list[str] = []
    clusters, count = _guarded(lambda: _clusters(rows, pictures), ([], 0), "the clusters", notes)
    names, purposes = _guarded(lambda: _queue_names(rows), ([], {}), "the review queues", notes)
    queues = [
        _guarded(lambda name=name: _queue(rows, name, purposes, limit), None, f"the review queue {name}", notes)
        for name in names
    ]
    return Derived(clusters, count, [queue for queue in queues if queue is not None], notes)


def with_cards(derived: Derived, cards: CardMaker) -> Derived:
    """The same, with a card for every row."""
    clusters = [
        MapCluster(cluster.name, cluster.size, cluster.separation, cluster.reason, cluster.map, cluster.members, [cards.card(row) for row in cluster.members])
        for cluster in derived.clusters
    ]  # fmt: skip
    queues = [
        Queue(
            queue.name,
            queue.purpose,
            queue.key,
            queue.count,
            queue.rows,
            queue.reasons,
            queue.by_label,
            [cards.card(row, why=queue.reasons[row["id"]]) for row in queue.rows],
        )
        for queue in derived.queues
    ]
    return Derived(clusters, derived.cluster_count, queues, derived.notes)


def _guarded(read: Callable[[], Any], nothing: Any, what: str, notes: list[str]) -> Any:
    """Tables of other programs and versions may hold anything; the page is worth having without them."""
    try:
        return read()
    except Exception as error:
        notes.append(f"{what} could not be read: {type(error).__name__}: {error}")
        return nothing


def _clusters(rows: ReportRows, pictures: Pictures) -> tuple[list[MapCluster], int]:
    table = _read(rows, CLUSTERS, "clusters.parquet")
    if table is None:
        return [], 0
    said = json.loads((table.schema.metadata or {}).get(b"heatlas_clusters", b"{}"))
    if "method" in table.column_names:
        table = table.filter(pc.field("method") == rows.method)
    clusters = []
    for number, row in enumerate(table.slice(0, SHOWN).to_pylist()):
        name = str(row.get("class_name") or rows.class_name(row["class"]))
        ids = [str(member) for member in (row.get("members") or [])[:TYPICAL]]
        map_ = _mean_map(row.get("mean_map"), said, pictures, number)
        clusters.append(
            MapCluster(
                name, int(row["size"]), row.get("separation"), str(row.get("reason") or ""), map_, _rows_of(rows, ids)
            )
        )
    return clusters, len(table)


def _mean_map(values: Any, said: Mapping[str, Any], pictures: Pictures, number: int) -> Stored | None:
    if not values:
        return None
    side = round(len(values) ** 0.5)
    shape = (int(said.get("height", side)), int(said.get("width", side)))
    map_ = np.asarray(values, np.float32).reshape(shape)
    peak = float(np.nanmax(map_))
    return pictures.map(("cluster", number), np.nan_to_num(map_ / peak if peak > 0 else map_), 112)


def _queue_names(rows: ReportRows) -> tuple[list[str], dict[str, str]]:
    """Files of queues in the order in which they are shown, and what the packaged recipes are for."""
    fs, path = locate(child(rows.atlas.uri, CURATION))
    names = [name for name in names_in(fs, path) if name.endswith(ENDING) and not name.startswith(".")]
    purposes = {recipe.name: recipe.purpose for recipe in load_recipes()}
    known = [f"{name}{ENDING}" for name in (*FIRST, *purposes)]
    names.sort(key=lambda name: (known.index(name) if name in known else len(known), name))
    return names[:QUEUES], purposes


def _queue(rows: ReportRows, name: str, purposes: Mapping[str, str], limit: int) -> Queue | None:
    table = _read(rows, CURATION, name)
    if table is None:
        return None
    if "method" in table.column_names:
        table = table.filter(pc.field("method") == rows.method)
    ranked = table.select(["id", "reason", "priority"]).sort_by([("priority", "descending")])
    reasons: dict[str, str] = {}
    for row in ranked.slice(0, 3 * limit).to_pylist():  # an image may stand there for several of its classes
        reasons.setdefault(str(row["id"]), str(row["reason"]))
    recipe = name.removesuffix(ENDING)
    title = recipe.replace("_", " ").capitalize()
    chosen = _rows_of(rows, list(reasons)[:limit])
    if not chosen:
        return None
    key = f"queue-{zlib.crc32(recipe.encode()):08x}"  # whatever the file is called
    return Queue(title, purposes.get(recipe, ""), key, len(table), chosen, reasons, _by_label(rows, table))


def _by_label(rows: ReportRows, table: pa.Table) -> dict[int, int]:
    rows.connection.register("heatlas_queue", table.select(["id"]))
    counts = rows.ask("SELECT label, count(*) AS images FROM rows WHERE main AND label IS NOT NULL AND id IN (SELECT id FROM heatlas_queue) GROUP BY label")  # fmt: skip
    rows.connection.unregister("heatlas_queue")
    return {row["label"]: row["images"] for row in counts}


def _rows_of(rows: ReportRows, ids: list[str]) -> list[dict[str, Any]]:
    """Rows in the order of their ids; ids that the store does not have are left out."""
    if not ids:
        return []
    marks = ", ".join("?" for _ in ids)
    by_id = {row["id"]: row for row in rows.ask(f"SELECT * FROM rows WHERE main AND id IN ({marks})", ids)}
    return [by_id[identity] for identity in ids if identity in by_id]


def _read(rows: ReportRows, folder: str, name: str) -> pa.Table | None:
    """A table beside the store; None where there is none.

    Raises:
        ValueError: If it is too large to be read whole.
    """
    place = child(rows.atlas.uri, folder)
    fs, path = locate(place)
    if name not in names_in(fs, path):
        return None
    if (size := fs.size(f"{path}/{name}") or 0) > LARGEST:
        raise ValueError(f"{name} has {size / 1e6:.0f} MB, more than the {LARGEST / 1e6:.0f} MB that a report reads")
    with fs.open(f"{path}/{name}", "rb") as file:
        return pq.read_table(pa.PythonFile(file))
