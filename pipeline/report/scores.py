"""Means of the metrics with their intervals, floors beside them, over the rows of a report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..statistics.bootstrap import BUCKETS, RESAMPLES
from ..statistics.metric_summary import SCHEMA, columns_of, from_rows, records
from .rows import ReportRows

Z95 = 1.959963984540054


def run_scores(rows: ReportRows, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, dict[str, Any]]:
    """One record per metric, as `score_summary` gives them for a whole run; an image with several rows counts once."""
    floored = [name for name in rows.floored if name in rows.metrics]
    columns = columns_of(rows.metrics, floored)
    if not columns:
        return {}
    sums = ", ".join(f"coalesce(fsum({sql}), 0)::DOUBLE, count({sql})" for sql in columns.values())
    found = rows.connection.execute(
        f"SELECT (draw % {BUCKETS})::BIGINT AS bucket, {sums} FROM rows WHERE main GROUP BY 1 ORDER BY 1"
    ).fetchall()
    made = from_rows(np.array(found, dtype=np.float64))
    facts = rows.atlas.metadata.get("metrics", {})
    return {
        one["metric"]: {key: one.get(key) for key in SCHEMA.names}
        for one in records(None, rows.images, made, rows.metrics, floored, facts, resamples, seed)
        if one["n"]
    }


def wilson(hits: int, of: int) -> tuple[float, float] | None:
    """The 95 % interval of a share (Wilson's); None for a share of nothing."""
    if not of:
        return None
    share, z = hits / of, Z95
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)
