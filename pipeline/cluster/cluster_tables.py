"""The tables of `heatlas cluster`: one row per cluster, and one row per clustered map."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

METADATA_KEY = b"heatlas_clusters"
"""JSON: `height` and `width` of the mean maps, `target`, `seed`, `min_size`, `side`."""
CLUSTERS = pa.schema(
    [
        ("class", pa.int32()), ("cluster", pa.int32()), ("size", pa.int64()), ("separation", pa.float64()),
        ("members", pa.list_(pa.string())), ("mean_map", pa.list_(pa.float16())), ("method", pa.string()),
        ("class_name", pa.string()), ("share", pa.float64()), ("tightness", pa.float64()), ("right", pa.float64()), ("confidence", pa.float64()),
        ("ebpg", pa.float64()), ("border_share", pa.float64()), ("reason", pa.string()),
    ]
)  # fmt: skip
"""`class` is the explained class; `cluster` 0 the largest of the class; `separation` the mean silhouette in [-1, 1] against
the rest of the class, null where there is none; `tightness` how much nearer the members are to each other than any two maps of the
run, at most 1; `members` ids of typical ones, the most typical first; `mean_map` rows from the top; `share` of the class's maps;
`right` share of members whose prediction is their label; `confidence`, `ebpg`, `border_share` means; `reason` the same in words."""
MEMBERS = pa.schema(
    [
        ("id", pa.string()), ("target", pa.int32()), ("class", pa.int32()), ("cluster", pa.int32()),
        ("probability", pa.float64()), ("method", pa.string()),
    ]
)  # fmt: skip
"""`cluster` is -1 for a map that is in no cluster of its class."""


def reason(row: dict[str, Any], where: tuple[float, float]) -> str:
    """A cluster in words.

    Args:
        row: Of `CLUSTERS`.
        where: Centre of the mean map's mass from the top and from the left, in [0, 1].
    """
    text = f"{100 * row['share']:.0f} % of the maps for {row['class_name']} ({row['size']:,}) lie {place(*where)}"
    facts = [f"tightness {row['tightness']:.2f}"]
    if row["separation"] is not None:
        facts.append(f"separation {row['separation']:.2f}")
    if row["right"] is not None:
        facts.append(f"{100 * row['right']:.0f} % correct")
    if row["ebpg"] is not None:
        facts.append(f"{100 * row['ebpg']:.0f} % of the attribution on the object")
    if row["border_share"] is not None:
        facts.append(f"{100 * row['border_share']:.0f} % in the border")
    return f"{text} ({', '.join(facts)})"


def place(down: float, right: float) -> str:
    """A point of the image in words: `at the lower left`."""
    rows = "upper " if down < 1 / 3 else "lower " if down > 2 / 3 else ""
    columns = "left" if right < 1 / 3 else "right" if right > 2 / 3 else ""
    if rows and columns:
        return f"at the {rows}{columns}"
    if rows:
        return f"in the {rows}middle"
    return f"at the {columns} side" if columns else "in the middle"
