"""`heatlas compare`: two runs over the same images, as data, as text and as a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UsageError
from ..statistics.bootstrap import LEVEL, RESAMPLES, BucketSums, buckets_of, check_bootstrap
from ..statistics.metric_summary import real
from ..statistics.paired_tests import common_metrics, favoured, holm, row_of
from ..storage.location import same_place
from ..store.identity import differences
from ..store.reader import StoreReader, open_store
from .chosen_columns import choice_warnings
from .marked_groups import DecidedGroup, decided_groups
from .movement import Movement, measure_movement
from .pairs import Pairs, Side, fine, paired
from .predictions import Predictions, compare_predictions

MOST = 12
LARGEST = 200
BINS = 20
TAIL_RESAMPLES = 200
"""Resamples for each metric of an adjusted interval, whose ends lie far out."""
OWN = frozenset({"plan", "versions", "metrics"})
"""Parts of a fingerprint that say nothing about how maps come about."""


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side."""

    pairs: Pairs
    metrics: list[dict[str, Any]]
    """As `Atlas.compare` gives them, over the pairs that are ok in both, and `low_adjusted`, `high_adjusted`: the interval of the
    difference at the level 1 - 0.05 / metrics (Bonferroni), which holds for all metrics together."""
    uncompared: list[str]
    """Metrics that only one of them has, that they define differently, or that no pair has in both."""
    predictions: Predictions
    moved: Movement | None
    most: list[dict[str, Any]]
    """Pairs whose explanation moved most while the prediction stayed: `id`, `label`, `prediction`, `first_target`, `second_target`,
    `first_confidence`, `second_confidence`, `distance`, `shift`."""
    settings: list[str]
    """What differs between the runs, a line each."""
    resamples: int
    seed: int
    warnings: list[str]
    """Metrics that favour a method because they chose it."""
    decided: list[DecidedGroup]
    """Predictions by what people decided about marks and labels; empty without such decisions."""

    @property
    def stayed(self) -> np.ndarray:
        """`(pair,)` whether both rows are ok and predict the same class."""
        table = self.pairs.table
        same = table["first_prediction"].to_numpy() == table["second_prediction"].to_numpy()
        return np.asarray(fine(self.pairs).fill_null(False)) & same

    @property
    def distances(self) -> np.ndarray:
        """Distances of all pairs whose prediction stayed and whose maps are both there."""
        values = self.moved.distance[self.stayed] if self.moved else np.empty(0)
        return values[~np.isnan(values)]

    def histogram(self) -> list[int]:
        """Pairs by distance, in 20 bins over [0, 1]."""
        return np.histogram(self.distances.clip(0, 1), bins=BINS, range=(0, 1))[0].tolist()

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        pairs, answers, far = self.pairs, self.predictions, self.distances
        sides = [{"out": side.atlas.uri, "method": side.method, "target": side.target, "alone": alone, "alone_examples": some}
                 for side, alone, some in zip(pairs.sides, pairs.alone, pairs.examples, strict=True)]  # fmt: skip
        return {
            "first": sides[0], "second": sides[1], "joined_by": pairs.joined, "pairs": len(pairs), "both_ok": int(fine(pairs).to_numpy().sum()),
            "differences": self.settings, "notes": pairs.notes, "warnings": self.warnings, "metrics": self.metrics, "uncompared": self.uncompared,
            "predictions": {
                "images": answers.images, "changed": answers.changed, "changes": answers.changes, "labelled": answers.labelled,
                "accuracy": list(answers.accuracy), "only_right": list(answers.only), "p": answers.p,
                "decided": [{"group": group.name, "images": group.images, "accuracy": list(group.accuracy), "p": group.p} for group in self.decided],
            },
            "moved": None if self.moved is None else {
                "pairs": len(far), "mean": _or_none(far.mean) if len(far) else None, "median": _or_none(lambda: np.median(far)) if len(far) else None,
                "histogram": self.histogram(), "most": self.most,
            },
        }  # fmt: skip


def compare_runs(
    first: str | os.PathLike[str] | StoreReader,
    second: str | os.PathLike[str] | StoreReader,
    *,
    metrics: Sequence[str] | None = None,
    method: str | None = None,
    other_method: str | None = None,
    most: int = MOST,
    resamples: int = RESAMPLES,
    seed: int = 0,
    choice: str | None = None,
) -> Comparison:
    """Compare two models, methods or settings over the same images.

    Args:
        first: Directory or URI of a store, or the store opened.
        second: Another one, or the same one with another method.
        metrics: Which to compare; None for all that both have under the same definition.
        method: Of the first run, where it has several; None for the one with the most rows.
        other_method: Of the second.
        most: How many pairs whose explanation moved most are listed, 1 to 200.
        resamples: Of the bootstrap intervals.
        seed: Of the resamples.
        choice: File of `heatlas choose`, where it does not lie in one of the stores: metrics that chose a method are named where they favour it.

    Raises:
        UsageError: If nothing can be compared as asked.
        StorageError: If a store cannot be read.
    """
    check_bootstrap(resamples, seed)
    if not 1 <= most <= LARGEST:
        raise UsageError(
            f"the number of moved explanations to list must be from 1 to {LARGEST}, got {most}; leave it out for {MOST}"
        )
    atlases = [store if isinstance(store, StoreReader) else open_store(store) for store in (first, second)]
    sides = Side.of(atlases[0], method), Side.of(atlases[1], other_method)
    if same_place(atlases[0].uri, atlases[1].uri) and sides[0].method == sides[1].method:
        raise UsageError(
            f"{atlases[0].uri} would be compared with itself; give another run, or --method and --other-method"
        )
    names = compared_metrics(atlases[0], atlases[1], metrics)
    pairs = paired(*sides, names)
    moved = measure_movement(pairs)
    rows = tested(pairs, resamples, seed)
    without = [name for name in names if name not in {row["metric"] for row in rows}]
    comparison = Comparison(
        pairs, rows, [*(uncompared(atlases[0], atlases[1], names) if metrics is None else []), *without], compare_predictions(pairs), moved, [],
        differing(*sides), resamples, seed, choice_warnings(pairs, rows, choice), decided_groups(pairs),
    )  # fmt: skip
    comparison.most.extend(most_moved(comparison, most))
    return comparison


def compared_metrics(first: StoreReader, second: StoreReader, wanted: Sequence[str] | None) -> list[str]:
    """Metrics that both have under the same definition; without any, predictions and maps are still compared."""
    if wanted is not None:
        return common_metrics(first, second, wanted)
    try:
        return common_metrics(first, second, None)
    except UsageError:
        return []


def uncompared(first: StoreReader, second: StoreReader, names: Sequence[str]) -> list[str]:
    """Metrics of either that are not compared."""
    every = dict.fromkeys([*first.metadata.get("metrics", {}), *second.metadata.get("metrics", {})])
    return [name for name in every if name not in names]


def tested(pairs: Pairs, resamples: int, seed: int) -> list[dict[str, Any]]:
    """A paired test per metric that some pair has in both runs, corrected for all of them."""
    good = pairs.table.filter(fine(pairs))
    buckets = buckets_of(good["id"].to_pylist())
    facts = pairs.sides[0].atlas.metadata.get("metrics", {})
    rows, differences = [], []
    for name in pairs.metrics:
        values = [good[f"{which}_{name}"].to_numpy().astype(np.float64) for which in ("first", "second")]
        if np.isnan(values[0] - values[1]).all():
            continue
        differences.append(values[0] - values[1])
        rows.append(row_of(name, facts.get(name, {}), buckets, values[0], values[1], resamples, seed))
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
        row["favours"] = favoured(row["effect"], p, row["better"])
    if rows:
        level, drawn = 1 - (1 - LEVEL) / len(rows), max(resamples, TAIL_RESAMPLES * len(rows))
        low, high = BucketSums.of_buckets(buckets, np.stack(differences, axis=1)).intervals(
            resamples=drawn, seed=seed, level=level
        )
        for place, row in enumerate(rows):
            row["low_adjusted"], row["high_adjusted"] = real(low[place]), real(high[place])
    return rows


def most_moved(comparison: Comparison, most: int) -> list[dict[str, Any]]:
    """The pairs with the largest distance of those whose prediction stayed, of an image only the one that moved most."""
    if comparison.moved is None:
        return []
    distance = np.where(comparison.stayed & ~np.isnan(comparison.moved.distance), comparison.moved.distance, -1.0)
    order = np.argsort(-distance, kind="stable")
    listed: dict[str, dict[str, Any]] = {}
    for place in order.tolist():
        if distance[place] < 0 or len(listed) == most:
            break
        row = comparison.pairs.table.slice(place, 1).to_pylist()[0]
        listed.setdefault(row["id"], {
            "id": row["id"], "label": row["label"], "prediction": row["first_prediction"],
            **{f"{which}_{name}": row[f"{which}_{name}"] for which in ("first", "second") for name in ("target", "object_id", "confidence")},
            "distance": float(distance[place]), "shift": _or_none(lambda place=place: comparison.moved.shift[place]),  # pyright: ignore[reportOptionalMemberAccess]
        })  # fmt: skip
    return list(listed.values())


def differing(first: Side, second: Side) -> list[str]:
    """What was not the same when the two runs were made, a line each."""
    stored = [
        {key: value for key, value in side.atlas.run["fingerprint"].items() if key not in OWN}
        for side in (first, second)
    ]
    lines = [
        line.strip().replace("stored ", "", 1).replace(", now ", " and ", 1)
        for line in differences(stored[0], stored[1])
    ]
    if first.method != second.method and not any(line.startswith("method:") for line in lines):
        lines.insert(0, f'method: "{first.method}" and "{second.method}"')
    return lines


def _or_none(value: Any) -> float | None:
    number = float(value())
    return number if np.isfinite(number) else None
