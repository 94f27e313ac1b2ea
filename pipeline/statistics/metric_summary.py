"""Mean metrics of a run, or of each of its classes, with bootstrap intervals, beside their chance baselines. Reads no maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...engine.chance_map_names import CHANCE_MAP_NAMES
from ...errors import UsageError, did_you_mean
from ..store.schema import metric_columns
from ..store.sql import quoted
from .bootstrap import BUCKETS, RESAMPLES, BucketSums, check_bootstrap
from .one_row_per_image import image_rows

if TYPE_CHECKING:
    from ..store.reader import StoreReader

GROUPS = {"class": "label", "prediction": "prediction", "status": "status"}
"""What a summary can be split by, and the column that says it."""
SCHEMA = pa.schema(
    [
        ("group", pa.string()), ("rows", pa.int64()), ("metric", pa.string()), ("definition", pa.string()),
        ("unit", pa.string()), ("better", pa.string()), ("n", pa.int64()), ("mean", pa.float64()), ("low", pa.float64()),
        ("high", pa.float64()), ("chance_n", pa.int64()), ("chance_own", pa.float64()),
        *((f"{chance_map}{part}", pa.float64()) for chance_map in CHANCE_MAP_NAMES for part in ("", "_low", "_high")),
    ]
)  # fmt: skip


def score_summary(atlas: StoreReader, by: str | None = None, *, resamples: int = RESAMPLES, seed: int = 0) -> pa.Table:
    """Mean of the per-image values of every metric, with percentile bootstrap intervals at 95 %.

    Args:
        atlas: The run.
        by: `class` (the data set's label), `prediction` or `status`; None for the whole run.
        resamples: Of the bootstrap, at least 1.
        seed: Of the bootstrap.

    Returns:
        Of an image with several targets the row of the predicted class counts, or where there is none that of the lowest target.
        One row per group and metric: `group` (null for the whole run), `rows` (of the group, error rows included), `metric`,
        `definition`, `unit`, `better`; `n` images with a value, their `mean` and its interval `low` to `high`; `chance_n` images on
        which chance maps were measured, the metric's mean over these (`chance_own`), and that of a random map and of a centred Gaussian
        (`random`, `gaussian`, each with `_low` and `_high`). Null where there is no value.

    Raises:
        UsageError: For an unknown `by`, a split that no row has a value for, or fewer than one resample.
    """
    if by is not None and by not in GROUPS:
        raise UsageError(f"cannot split by {by!r}{did_you_mean(by, GROUPS)}; choose {', '.join(GROUPS)}")
    check_bootstrap(resamples, seed)
    metrics, chance_metrics = metric_columns(atlas.schema), chance_columns(atlas.schema)
    rows = group_rows(atlas, by)
    sums = bucket_sums(atlas, by, columns_of(metrics, chance_metrics))
    facts = atlas.metadata.get("metrics", {})
    summaries = []
    for group in rows:
        summaries += records(group, rows[group], sums.get(group), metrics, chance_metrics, facts, resamples, seed)
    for record in summaries:
        record["group"] = None if by is None else group_name(record["group"], by, atlas.class_names)
    return pa.Table.from_pylist(summaries, schema=SCHEMA)


def chance_columns(schema: pa.Schema) -> list[str]:
    """The metrics that the store has of chance maps."""
    if "floors" not in schema.names:
        return []
    kind = schema.field("floors").type
    return [field.name for field in kind.field(0).type]


def columns_of(metrics: Sequence[str], chance_metrics: Sequence[str]) -> dict[str, str]:
    """SQL of every number that is averaged, by a name for it: each metric, and for the images with chance maps each map's."""
    own = {name: quoted(name) for name in metrics}
    same = {f"own:{name}": f"CASE WHEN floors IS NOT NULL THEN {quoted(name)} END" for name in chance_metrics}
    of_chance_maps = {
        f"{chance_map}:{name}": f"floors.{quoted(chance_map)}.{quoted(name)}"
        for chance_map in CHANCE_MAP_NAMES
        for name in chance_metrics
    }
    return {**own, **same, **of_chance_maps}


def group_rows(atlas: StoreReader, by: str | None) -> dict[Any, int]:
    """Rows of every group, in the order of the groups.

    Raises:
        UsageError: If no row has a group.
    """
    if by is None:
        return {None: len(atlas)}
    column = GROUPS[by]
    rows = atlas.query_rows(f"SELECT {column}, count(*) FROM atlas GROUP BY 1 ORDER BY 1 NULLS LAST")
    if [group for group, _ in rows] == [None]:
        others = ", ".join(name for name in GROUPS if name != by)
        raise UsageError(f"no row of {atlas.uri} has a {column}, so it cannot be split by {by}; choose {others}")
    return dict(rows)


def bucket_sums(atlas: StoreReader, by: str | None, columns: Mapping[str, str]) -> dict[Any, BucketSums]:
    """Sums by group and bucket, made where the rows are."""
    if not columns:
        return {}
    group = "NULL" if by is None else GROUPS[by]
    values = ", ".join(f"coalesce(fsum({sql}), 0)::DOUBLE, count({sql})" for sql in columns.values())
    summed = atlas.query_rows(
        f"SELECT {group} AS split, (md5_number_lower(id) % {BUCKETS})::BIGINT AS bucket, {values} FROM {image_rows(atlas)} GROUP BY ALL ORDER BY ALL"
    )
    by_group: dict[Any, list[Sequence[float]]] = {}
    for row in summed:
        by_group.setdefault(row[0], []).append(row[1:])
    return {group: from_rows(np.array(rows, dtype=np.float64)) for group, rows in by_group.items()}


def from_rows(rows: np.ndarray) -> BucketSums:
    """From `(bucket, 1 + 2 * column)`: the bucket, then sum and count of every column."""
    return BucketSums(rows[:, 0].astype(np.int64), rows[:, 1::2], rows[:, 2::2].astype(np.int64))


def records(
    group: Any,
    rows: int,
    sums: BucketSums | None,
    metrics: Sequence[str],
    chance_metrics: Sequence[str],
    facts: Mapping[str, Any],
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One group's rows of the summary."""
    if sums is None:
        return []
    low, high = sums.intervals(resamples=resamples, seed=seed)
    columns = list(columns_of(metrics, chance_metrics))
    numbers = {
        name: {"n": int(n), "mean": real(mean), "low": real(below), "high": real(above)}
        for name, n, mean, below, above in zip(columns, sums.number, sums.means, low, high, strict=True)
    }
    summaries = []
    for name in metrics:
        fact = facts.get(name, {})
        record = {
            "group": group,
            "rows": rows,
            "metric": name,
            **{key: fact.get(key) for key in ("definition", "unit", "better")},
        }
        record |= numbers[name]
        if name in chance_metrics:
            record |= {"chance_n": numbers[f"own:{name}"]["n"], "chance_own": numbers[f"own:{name}"]["mean"]}
            for chance_map in CHANCE_MAP_NAMES:
                of_map = numbers[f"{chance_map}:{name}"]
                record |= {
                    chance_map: of_map["mean"],
                    f"{chance_map}_low": of_map["low"],
                    f"{chance_map}_high": of_map["high"],
                }
        summaries.append(record)
    return summaries


def real(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def group_name(group: Any, by: str, class_names: Sequence[str]) -> str:
    """A group as people call it."""
    if group is None:
        return "(none)"
    named = by != "status" and 0 <= group < len(class_names)
    return str(class_names[group]) if named else str(group)
