"""Two runs, two methods, or a run and its chance baselines over the same images: paired tests, metric by metric.

Wilcoxon's signed-rank test asks whether the differences lie symmetrically about 0; the effect size says by how much they do not; Holm's
correction accounts for as many tests as there are metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...engine.chance_map_names import CHANCE_MAP_NAMES
from ...errors import UsageError, did_you_mean
from ..store.schema import metric_columns
from ..store.sql import quoted
from .bootstrap import RESAMPLES, BucketSums, buckets_of, check_bootstrap
from .metric_summary import chance_columns, real

if TYPE_CHECKING:
    from ..store.reader import StoreReader

SIGNIFICANT = 0.05
NOISE = 1e-6
"""Differences below this share of the values' span are rounding (batches of another shape), and count as none."""
SCHEMA = pa.schema(
    [
        ("metric", pa.string()), ("definition", pa.string()), ("unit", pa.string()), ("better", pa.string()), ("n", pa.int64()),
        ("first_mean", pa.float64()), ("second_mean", pa.float64()), ("difference", pa.float64()), ("low", pa.float64()),
        ("high", pa.float64()), ("statistic", pa.float64()), ("p", pa.float64()), ("p_holm", pa.float64()),
        ("effect", pa.float64()), ("favours", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon's signed-rank test of paired differences."""

    n: int
    """Pairs that are not equal."""
    statistic: float
    """The smaller of the two rank sums."""
    p: float
    """Two-sided; 1 where all pairs are equal."""
    effect: float
    """Matched-pairs rank-biserial correlation: (ranks of positive - ranks of negative differences) / all ranks, in [-1, 1]."""


def paired_test(differences: np.ndarray) -> PairedTest:
    """Test whether finite paired differences `(pair,)` lie symmetrically about 0; zeros are left out, as Wilcoxon does."""
    from scipy import stats

    there = differences[differences != 0]
    if not len(there):
        return PairedTest(0, 0.0, 1.0, 0.0)
    ranks = stats.rankdata(np.abs(there))
    positive, total = float(ranks[there > 0].sum()), float(ranks.sum())
    tied = len(np.unique(np.abs(there))) < len(there)
    result: Any = stats.wilcoxon(there, method="exact" if len(there) <= 50 and not tied else "approx")
    return PairedTest(len(there), min(positive, total - positive), float(result.pvalue), (2 * positive - total) / total)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that together keep the family-wise error, in the order given."""
    count = len(p_values)
    corrected, highest = [0.0] * count, 0.0
    for done, place in enumerate(sorted(range(count), key=lambda test: p_values[test])):
        highest = max(highest, min(1.0, (count - done) * p_values[place]))
        corrected[place] = highest
    return corrected


def compare_scores(
    first: StoreReader,
    second: StoreReader | str,
    metrics: Sequence[str] | None = None,
    *,
    where: str = "TRUE",
    second_where: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pa.Table:
    """Compare per-image metrics over the ids that both have, in pairs.

    Args:
        first: A run.
        second: Another run over the same images, the same one (with other conditions), or a chance baseline of `first`: `random` or
            `gaussian`.
        metrics: Which; None for all that both have under the same definition.
        where: SQL condition on the rows of both, such as `"label = 3"`.
        second_where: SQL condition on the rows of `second` instead, such as `"method = 'grad_cam'"`.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        One row per metric: `metric`, `definition`, `unit`, `better`, `n` pairs, `first_mean`, `second_mean`, the mean
        `difference` first - second with its 95 % bootstrap interval `low` to `high`, `statistic` and `p` of Wilcoxon's
        signed-rank test (two-sided), `p_holm` corrected for all metrics of the table, `effect` (matched-pairs rank-biserial in
        [-1, 1], positive where first is larger), and `favours`: `first`, `second`, or `neither` where `p_holm` is not below 0.05
        or the metric has no better end.

    Raises:
        UsageError: For metrics that one of them does not have or defines otherwise, ids with several rows, or no common id.
    """
    check_bootstrap(resamples, seed)
    names = common_metrics(first, second, metrics)
    mine, theirs = paired_values(first, second, names, where, where if second_where is None else second_where)
    buckets = buckets_of(mine.pop("id"))
    facts = first.metadata.get("metrics", {})
    records = [row_of(name, facts.get(name, {}), buckets, mine[name], theirs[name], resamples, seed) for name in names]
    for record, p in zip(records, holm([record["p"] for record in records]), strict=True):
        record["p_holm"] = p
        record["favours"] = favoured(record["effect"], p, record["better"])
    return pa.Table.from_pylist(records, schema=SCHEMA)


def common_metrics(first: StoreReader, second: StoreReader | str, wanted: Sequence[str] | None) -> list[str]:
    """The metrics to compare.

    Raises:
        UsageError: Naming what one of them lacks.
    """
    ours = metric_columns(first.schema)
    if isinstance(second, str):
        if second not in CHANCE_MAP_NAMES:
            raise UsageError(
                f"unknown chance map {second!r}{did_you_mean(second, CHANCE_MAP_NAMES)}; give {', '.join(CHANCE_MAP_NAMES)} or a run"
            )
        both = chance_columns(first.schema)
        lacking = "has no chance maps of that kind; run with --chance-maps above 0"
    else:
        definitions = [
            {name: fact.get("definition") for name, fact in store.metadata.get("metrics", {}).items()}
            for store in (first, second)
        ]
        theirs = metric_columns(second.schema)
        both = [name for name in ours if name in theirs and definitions[0].get(name) == definitions[1].get(name)]
        lacking = f"or {second.uri} does not have it, or they define it differently"
    if wanted is None and not both:
        raise UsageError(f"nothing to compare: {first.uri} {lacking}" if isinstance(second, str) else
                         f"{first.uri} and {second.uri} have no metric in common")  # fmt: skip
    for name in wanted or ():
        if name not in both:
            raise UsageError(f"cannot compare {name!r}{did_you_mean(name, both)}: {first.uri} {lacking}")
    return both if wanted is None else list(dict.fromkeys(wanted))


def paired_values(
    first: StoreReader, second: StoreReader | str, names: Sequence[str], where: str, second_where: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values `(pair,)` by metric of both, in the order of `id` (which the first one holds too)."""
    mine = scores_by_id(first, {name: quoted(name) for name in names}, where)
    if isinstance(second, str):
        theirs = scores_by_id(
            first,
            {name: f"floors.{quoted(second)}.{quoted(name)}" for name in names},
            f"({where}) AND floors IS NOT NULL",
        )
    else:
        theirs = scores_by_id(second, {name: quoted(name) for name in names}, second_where)
    shared, ours, others = np.intersect1d(mine["id"], theirs["id"], assume_unique=True, return_indices=True)
    if not len(shared):
        other = f"its {second} chance maps" if isinstance(second, str) else second.uri
        raise UsageError(
            f"{first.uri} and {other} have no image in common that is ok in both; compare runs over the same ids"
        )
    return (
        {name: shared if name == "id" else values[ours] for name, values in mine.items()},
        {name: values[others] for name, values in theirs.items() if name != "id"},
    )


def scores_by_id(atlas: StoreReader, columns: dict[str, str], where: str) -> dict[str, np.ndarray]:
    """`id` and the columns of the rows that are ok, each `(row,)`, NaN for null.

    Raises:
        UsageError: If an id has several such rows.
    """
    values = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in columns.items())
    rows = atlas.query_table(f"SELECT id, {values} FROM atlas WHERE status = 'ok' AND ({where}) ORDER BY id")
    ids = np.array(rows["id"].to_pylist(), dtype=object)
    again = np.flatnonzero(ids[1:] == ids[:-1])
    if len(again):
        raise UsageError(f"the id {ids[again[0]]!r} has several rows in {atlas.uri}; choose one with a condition, such as "
                         "where=\"method = 'sise'\"")  # fmt: skip
    return {"id": ids, **{name: rows[name].to_numpy().astype(np.float64) for name in columns}}


def row_of(
    name: str,
    fact: dict[str, Any],
    buckets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """One metric's comparison over the pairs in which both have it."""
    both = ~(np.isnan(first) | np.isnan(second))
    ours, two = first[both], second[both]
    differences = ours - two
    span = np.ptp(np.concatenate([ours, two])) if len(ours) else 0.0
    test = paired_test(np.where(np.abs(differences) <= NOISE * span, 0.0, differences))
    sums = BucketSums.of_buckets(buckets[both], np.stack([ours, two, differences], axis=1))
    low, high = sums.intervals(resamples=resamples, seed=seed)
    means = [real(mean) for mean in sums.means]
    return {
        "metric": name, **{key: fact.get(key) for key in ("definition", "unit", "better")}, "n": len(ours),
        "first_mean": means[0], "second_mean": means[1], "difference": means[2], "low": real(low[2]), "high": real(high[2]),
        "statistic": test.statistic, "p": test.p, "effect": test.effect,
    }  # fmt: skip


def favoured(effect: float, p: float, better: str | None) -> str:
    if p >= SIGNIFICANT or effect == 0 or better not in ("higher", "lower"):
        return "neither"
    return "first" if (effect > 0) == (better == "higher") else "second"
