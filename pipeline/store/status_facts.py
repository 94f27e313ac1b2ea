"""What is known of a run without reading its rows: plain facts, and the same as JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ShardCounts:
    """Shards of a plan and those that are stored."""

    planned: int
    done: int


@dataclass(frozen=True)
class MetricMean:
    """Of all rows that have the metric."""

    mean: float | None
    """None where no row has it."""
    count: int


@dataclass(frozen=True)
class FailureCause:
    """Rows that failed alike."""

    status: str
    error: str | None
    rows: int
    example: str
    """Id of one of them."""


@dataclass(frozen=True)
class EvaluationStatus:
    """How far metrics are that were added to a store."""

    name: str
    """Of its folder."""
    created: str
    complete: bool
    shards: ShardCounts
    metrics: dict[str, MetricMean]
    rows: int
    statuses: dict[str, int]
    """Rows by status."""
    causes: list[FailureCause]
    """Of rows that failed, the most frequent first."""
    forwards: int
    seconds: float
    """Of all workers together."""
    bytes: int


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    out: str
    complete: bool
    """Whether every shard is stored."""
    success: bool
    """Whether the run was concluded: `_SUCCESS` is there."""
    shards: ShardCounts
    undone: list[int]
    """Shards that are not stored."""
    samples: int
    """Planned."""
    samples_done: int
    rows: int
    statuses: dict[str, int]
    """Rows by status."""
    metrics: dict[str, MetricMean]
    forwards: int
    seconds: float
    """Of all workers together."""
    bytes: int
    causes: list[FailureCause]
    """Of rows that failed, the most frequent first."""
    retryable: int
    """Rows that `--retry-errors` would try again."""
    evaluations: list[EvaluationStatus]
    """What was added since, the oldest first."""
    created: str
    settings: dict[str, Any]
    """As resolved when the run began."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `heatlas status --json` prints them."""
        return asdict(self)


def metric_means(values: Mapping[str, Mapping[str, Any]]) -> dict[str, MetricMean]:
    """The metrics of `row_totals`."""
    return {name: MetricMean(value["mean"], value["count"]) for name, value in values.items()}


def causes_of(values: Iterable[Mapping[str, Any]]) -> list[FailureCause]:
    """The causes of `row_totals`."""
    return [FailureCause(value["status"], value["error"], value["rows"], value["example"]) for value in values]
