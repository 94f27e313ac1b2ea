"""What the page of `heatlas view` shows, and what the store says."""

from __future__ import annotations

from pathlib import Path

import heatlas


def count(store: Path, where: str) -> int:
    rows = heatlas.open(str(store)).sql(
        f"SELECT count(DISTINCT id) FROM atlas WHERE (target = prediction OR target IS NULL) AND ({where})"
    )
    return rows.fetchall()[0][0]
