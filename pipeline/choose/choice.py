"""A choice as a table: one row per method, and which columns, images and resamples it was made from."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError
from ..storage.atomic_write import put
from ..storage.location import child, locate, names_in
from ..text import counted
from .method_values import ChoiceColumn, MethodValues
from .ranking import Ranking

FOLDER, NAME = "choice", "choice.parquet"
METADATA_KEY = b"heatlas_choice"
LISTED_IDS = 5_000
"""Ids up to which a choice lists its images; beyond only their digest is kept."""


@dataclass(frozen=True)
class Choice:
    """Which method, and why."""

    method: str
    reason: str
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    """Of the stores, from which the columns are made."""
    images: int
    ids: tuple[str, ...] | None
    """Of the images; None where there are more than are listed."""
    rows: list[dict[str, Any]]
    """Per method, the best first: `method`, `store`, `chosen`, `passes`, `own_passes`, `failed`, `mean_rank`, `low`, `high`, `best_share`,
    `behind_low`, `behind_high`, and per column its mean, chance baseline and rank."""
    resamples: int
    seed: int

    def table(self) -> pa.Table:
        facts = {"method": self.method, "reason": self.reason, "columns": list(self.columns), "metrics": list(self.metrics), "images": self.images,
                 "ids": None if self.ids is None else list(self.ids), "resamples": self.resamples, "seed": self.seed,
                 "ids_sha256": None if self.ids is None else hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogateescape")).hexdigest()}  # fmt: skip
        return pa.Table.from_pylist(self.rows).replace_schema_metadata({METADATA_KEY: json.dumps(facts).encode()})

    def write(self, uri: str) -> None:
        """Write it as Parquet, over an older one."""
        buffer = io.BytesIO()
        pq.write_table(self.table(), buffer)
        put(uri, buffer.getvalue())


def make_choice(
    methods: Sequence[MethodValues], columns: Sequence[ChoiceColumn], ranking: Ranking, ids: Sequence[str], *, resamples: int, seed: int
) -> Choice:  # fmt: skip
    """The cheapest method that cannot be told from the best one; of equally cheap ones the better ranked."""
    candidates = np.flatnonzero(ranking.is_open)
    costs = [method.own_passes for method in methods]
    price = [method.passes for method in methods] if None in costs else costs
    chosen = min(candidates.tolist(), key=lambda place: (price[place], ranking.mean_rank[place], place))
    order = np.lexsort((-ranking.best_share, ranking.mean_rank)).tolist()
    rows = [_row(methods[place], columns, ranking, place, place == chosen) for place in order]
    return Choice(
        methods[chosen].method, _reason(methods, columns, ranking, chosen, len(candidates), len(ids)), tuple(column.name for column in columns),
        tuple(metric for column in columns for metric in column.metrics), len(ids), tuple(ids) if len(ids) <= LISTED_IDS else None, rows, resamples, seed,
    )  # fmt: skip


def read_choice(uri: str) -> Choice | None:
    """The choice in a file; None where there is none.

    Raises:
        StorageError: If the file is no choice.
    """
    fs, path = locate(uri)
    folder, _, name = path.rpartition("/")
    if name not in names_in(fs, folder):
        return None
    try:
        with fs.open(path, "rb") as file:
            table = pq.read_table(pa.PythonFile(file))
        facts = json.loads((table.schema.metadata or {})[METADATA_KEY])
        ids = None if facts["ids"] is None else tuple(map(str, facts["ids"]))
        return Choice(str(facts["method"]), str(facts["reason"]), tuple(facts["columns"]), tuple(facts["metrics"]), int(facts["images"]), ids,
                      table.to_pylist(), int(facts["resamples"]), int(facts["seed"]))  # fmt: skip
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{uri} is no choice of `heatlas choose`: {type(error).__name__}: {error}; delete it, or choose again"
        ) from error


def choice_place(store: str) -> str:
    """Where a store keeps the choice that it was part of."""
    return child(child(store, FOLDER), NAME)


def _row(
    method: MethodValues, columns: Sequence[ChoiceColumn], ranking: Ranking, place: int, is_chosen: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": method.method, "store": method.uri, "chosen": is_chosen, "passes": method.passes, "own_passes": method.own_passes, "failed": method.failed,
        "mean_rank": float(ranking.mean_rank[place]), "low": float(ranking.low[place]), "high": float(ranking.high[place]),
        "best_share": float(ranking.best_share[place]), "behind_low": float(ranking.behind_low[place]), "behind_high": float(ranking.behind_high[place]),
    }  # fmt: skip
    for number, column in enumerate(columns):
        chance = float(method.chance[number])
        row |= {
            column.name: float(ranking.means[place, number]),
            f"{column.name}_chance": None if np.isnan(chance) else chance,
            f"{column.name}_rank": float(ranking.ranks[place, number]),
        }
    return row


def _passes(method: MethodValues, unit: str = "") -> str:
    """`3 passes an image, 124 with the metrics`; what a choice measures the chosen method need not pay later."""
    if method.own_passes is None:
        return f"{method.passes:.0f} passes{unit}"
    own = f"{method.own_passes:.0f}"
    return f"{own} {'pass' if own == '1' else 'passes'}{unit}, {method.passes:.0f} with the metrics"


def _reason(
    methods: Sequence[MethodValues],
    columns: Sequence[ChoiceColumn],
    ranking: Ranking,
    chosen: int,
    candidates: int,
    images: int,
) -> str:
    best = ranking.best
    over = f"by {' and '.join(column.name for column in columns)} over {counted(images, 'image')}"
    cost = _passes(methods[chosen], " an image")
    standing = f"mean rank {ranking.mean_rank[best]:.2f}, 95 % {ranking.low[best]:.2f} to {ranking.high[best]:.2f}, best in {100 * ranking.best_share[best]:.0f} % of the resamples"
    if candidates == 1:
        return f"{methods[chosen].method} ({cost}) is better than the others beyond chance, {over} ({standing})"
    if chosen == best:
        return f"{methods[chosen].method} ({cost}) is the best and the cheapest of {candidates} methods that cannot be told apart, {over} ({standing})"
    return f"{methods[chosen].method} ({cost}) is the cheapest of {candidates} methods that cannot be told from the best, {methods[best].method} ({_passes(methods[best])}; {standing}), {over}"
