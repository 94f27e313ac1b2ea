"""What a part file says of itself in its footer, so that totals of a run need no rows: counts, causes of errors, sums, a digest."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from ...errors import shortened
from ...statuses import OK
from .part_origin import PartOrigin, ids_digest
from .row_digest import NUMBERS, combined, row_digests
from .schema import metric_columns

SUMMARY_KEY = b"heatlas_part"
MERGED_KEY = b"heatlas_parts"
"""In a merged file: the totals of every part in it, in order; the parts' rows follow each other in the same order."""
LONGEST_CAUSE = 300
SUMMARY_COLUMNS = frozenset({"id", "uri", "status", "error", "n_forwards", "seconds"})
"""Besides the metrics, what a summary is made of (its digest aside, which takes every column)."""


@dataclass(frozen=True)
class PartSummary:
    """Totals of one part."""

    rows: int
    samples: int
    statuses: dict[str, int]
    causes: list[dict[str, Any]]
    """`status`, `error`, `rows` and `example` (an id), for the rows that are not `ok`."""
    metrics: dict[str, tuple[float, int]]
    """Sum and count over the rows that have the metric."""
    forwards: int
    seconds: float
    digest: str | None
    """Of the logical content; None where only some columns were read."""
    origin: PartOrigin | None = None
    """Run and shard; None in stores of version 2 and in evaluations."""


def summarise(table: pa.Table, *, digest: bool = True, origin: PartOrigin | None = None) -> PartSummary:
    """The totals of a part from its rows; without `digest` the columns without maps suffice."""
    rows = table.select([name for name in table.column_names if name in SUMMARY_COLUMNS]).to_pylist()
    values = {
        name: [value for value in table[name].to_pylist() if value is not None and math.isfinite(value)]
        for name in metric_columns(table.schema)
    }
    return PartSummary(
        rows=len(rows),
        samples=len({row["id"] for row in rows}),
        statuses=dict(sorted(Counter(row["status"] for row in rows).items())),
        causes=_causes(rows),
        metrics={name: (math.fsum(numbers), len(numbers)) for name, numbers in values.items()},
        forwards=sum(row["n_forwards"] for row in rows),
        seconds=math.fsum(row["seconds"] for row in rows),
        digest=combined(row_digests(table)) if digest else None,
        origin=None if origin is None else replace(origin, ids=ids_digest(row["id"] for row in rows)),
    )  # fmt: skip


def with_summary(table: pa.Table, origin: PartOrigin | None = None) -> pa.Table:
    """The table with its totals and its origin in the schema metadata, which end up in the Parquet footer."""
    summary = json.dumps(asdict(summarise(table, origin=origin)), sort_keys=True).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), SUMMARY_KEY: summary})


def stored_summary(metadata: Mapping[bytes, bytes] | None) -> PartSummary | None:
    """The totals in a file's metadata; None if it has none, or none that this version can read."""
    try:
        return _summary_of(json.loads((metadata or {})[SUMMARY_KEY]))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _summary_of(facts: dict[str, Any]) -> PartSummary:
    origin = facts.get("origin")
    metrics = {name: (total, count) for name, (total, count) in facts["metrics"].items()}
    return PartSummary(**{**facts, "metrics": metrics, "origin": None if origin is None else PartOrigin(**origin)})


def with_summaries(schema: pa.Schema, summaries: Iterable[PartSummary]) -> pa.Schema:
    """The schema of a file that holds several parts, one after the other."""
    facts = json.dumps([asdict(summary) for summary in summaries], sort_keys=True).encode()
    return schema.with_metadata({**(without_summary(schema).metadata or {}), MERGED_KEY: facts})


def stored_summaries(metadata: Mapping[bytes, bytes] | None) -> list[PartSummary] | None:
    """The totals of the parts in a merged file's metadata; None if it has none, or none that this version can read."""
    try:
        return [_summary_of(facts) for facts in json.loads((metadata or {})[MERGED_KEY])]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def without_summary(schema: pa.Schema) -> pa.Schema:
    """The schema that all parts of a run share."""
    own = (SUMMARY_KEY, MERGED_KEY)
    return schema.with_metadata({key: value for key, value in (schema.metadata or {}).items() if key not in own})


def added_up(summaries: Iterable[PartSummary]) -> dict[str, Any]:
    """Totals over parts.

    Returns:
        `shards`, `rows`, `samples`, `statuses` (status -> rows), `causes` (the most frequent first), `forwards`, `seconds` (of all
        workers together), `metrics` (name -> `mean` over the rows that have it, and their `count`) and `digest` (None if any part
        has none).
    """
    parts = list(summaries)
    statuses: Counter[str] = Counter()
    sums: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for part in parts:
        statuses.update(part.statuses)
        for name, metric in part.metrics.items():
            sums[name].append(metric)
    digests = [bytes.fromhex(part.digest) for part in parts if part.digest]
    return {
        "shards": len(parts),
        "rows": sum(part.rows for part in parts),
        "samples": sum(part.samples for part in parts),
        "statuses": dict(sorted(statuses.items())),
        "causes": merged_causes(part.causes for part in parts),
        "forwards": sum(part.forwards for part in parts),
        "seconds": math.fsum(part.seconds for part in parts),
        "metrics": {name: _mean(sum_and_count) for name, sum_and_count in sums.items()},
        "digest": combined(digests) if len(digests) == len(parts) else None,
    }


def merged_causes(lists: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Causes of several parts as one list, the most frequent first. Texts that differ only in numbers count as one."""
    causes_by_text: dict[tuple[str, str], dict[str, Any]] = {}
    for causes in lists:
        for cause in causes:
            key = cause["status"], NUMBERS.sub("#", cause["error"] or "")
            if key in causes_by_text:
                causes_by_text[key]["rows"] += cause["rows"]
            else:
                causes_by_text[key] = dict(cause)
    return sorted(causes_by_text.values(), key=lambda cause: (-cause["rows"], cause["status"], cause["error"] or ""))


def _causes(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An image's own place is taken out of the texts, or every missing file would be a cause of its own."""
    return merged_causes(
        [{"status": row["status"], "error": _cause_text(row), "rows": 1, "example": row["id"]}]
        for row in rows if row["status"] != OK
    )  # fmt: skip


def _cause_text(row: Mapping[str, Any]) -> str | None:
    text = row["error"]
    if text is None:
        return None
    text = text.replace(row["uri"], "<uri>") if row["uri"] else text
    return shortened(text, LONGEST_CAUSE)


def _mean(sums: Iterable[tuple[float, int]]) -> dict[str, Any]:
    totals, counts = zip(*sums, strict=True)
    count = sum(counts)
    return {"mean": math.fsum(totals) / count if count else None, "count": count}
