"""Means of the metrics with their intervals, chance baselines beside them, over the rows of a report."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..statistics.bootstrap import BUCKETS, RESAMPLES
from ..statistics.metric_summary import SCHEMA, columns_of, from_rows, records
from .rows import ReportRows


def run_scores(rows: ReportRows, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, dict[str, Any]]:
    """One record per metric, as `score_summary` gives them for a whole run; an image with several rows counts once."""
    chance_metrics = [name for name in rows.chance_metrics if name in rows.metrics]
    columns = columns_of(rows.metrics, chance_metrics)
    if not columns:
        return {}
    sums = ", ".join(f"coalesce(fsum({sql}), 0)::DOUBLE, count({sql})" for sql in columns.values())
    sums_by_bucket = rows.connection.execute(
        f"SELECT (draw % {BUCKETS})::BIGINT AS bucket, {sums} FROM rows WHERE main GROUP BY 1 ORDER BY 1"
    ).fetchall()
    made = from_rows(np.array(sums_by_bucket, dtype=np.float64))
    facts = rows.atlas.metadata.get("metrics", {})
    return {
        record["metric"]: {key: record.get(key) for key in SCHEMA.names}
        for record in records(None, rows.images, made, rows.metrics, chance_metrics, facts, resamples, seed)
        if record["n"]
    }


def wilson(hits: int, of: int) -> tuple[float, float] | None:
    """The 95 % interval of a share (Wilson's); None for a share of nothing."""
    if not of:
        return None
    from scipy import stats  # here, because importing it takes a second

    interval = stats.binomtest(hits, of).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
