"""Parse what a page asks to see, and write it as a condition over the table `items`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from ...errors import UsageError, did_you_mean
from ..store.sql import quoted
from ..text import sql_refusal
from .beside import RELATIONS

OUTCOMES = {
    "correct": "correct",
    "wrong": "correct = false",
    "off-object": "off_object",
    "correct, on object": "correct AND NOT off_object",
    "unlabelled": "label IS NULL",
}
LONGEST_SQL = 4_000
"""Characters of a condition that a user typed."""
MOST_VALUES = 2_000
FIELDS = (
    "ranges",
    "label",
    "prediction",
    "status",
    "outcome",
    "text",
    "queue",
    "cluster",
    "decision",
    "second",
    "sql",
    "region",
    "targets",
)


@dataclass(frozen=True)
class Condition:
    """SQL over `items`, with the values of its parameters."""

    sql: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Region:
    """A rectangle in a scatter plot, its edges included."""

    kind: str
    """Of the embedding."""
    edges: tuple[float, float, float, float]
    """Left, right, lower and upper edge, in the unit square of the plot."""

    @classmethod
    def parse(cls, text: str) -> Region:
        """Read `KIND:LEFT,RIGHT,LOWER,UPPER`.

        Raises:
            UsageError: If it is written otherwise.
        """
        kind, _, numbers = text.rpartition(":")
        try:
            left, right, lower, upper = (float(number) for number in numbers.split(","))
        except ValueError:
            raise UsageError(f"a region must be KIND:LEFT,RIGHT,LOWER,UPPER, got {text!r}") from None
        if not kind or not all(map(math.isfinite, (left, right, lower, upper))):
            raise UsageError(f"a region must be KIND:LEFT,RIGHT,LOWER,UPPER with finite numbers, got {text!r}")
        return cls(kind, (left, right, lower, upper))


@dataclass(frozen=True)
class RowFilter:
    """What is to be seen; every part must hold."""

    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """By column, from where (included) to where (not included); None for an open end."""
    label: tuple[int, ...] = ()
    """Class indices, any of which may hold; empty for all."""
    prediction: tuple[int, ...] = ()
    status: tuple[str, ...] = ()
    outcome: str = ""
    """One of `OUTCOMES`, or empty."""
    text: str = ""
    """Part of the id, upper and lower case alike."""
    queue: str = ""
    cluster: str = ""
    decision: str = ""
    """A kind, `any`, `none`, or empty."""
    second: str = ""
    """One of `RELATIONS` to a second store, or empty."""
    sql: str = ""
    """A condition over the columns of `items`."""
    region: Region | None = None
    """Only rows whose point lies in it; the embedding must have been made."""
    targets: str = "main"
    """`main`: one row per image. `all`: also the rows of further explained classes."""

    def condition(self, without: str = "") -> Condition:
        """The whole filter as SQL.

        Args:
            without: A column whose range is left out, for the histogram in which it was chosen.
        """
        parts: list[Condition] = [] if self.targets == "all" else [Condition("main")]
        for name, (low, high) in self.ranges.items():
            if name == without:
                continue
            ends = [(f"{quoted(name)} {sign} ?", end) for sign, end in ((">=", low), ("<", high)) if end is not None]
            sql = " AND ".join(part for part, _ in ends) or f"{quoted(name)} IS NOT NULL"
            parts.append(Condition(sql, tuple(end for _, end in ends)))
        for name, values in (("label", self.label), ("prediction", self.prediction), ("status", self.status)):
            if values:
                parts.append(Condition(f"{name} IN ({', '.join('?' * len(values))})", tuple(values)))
        if self.outcome:
            parts.append(Condition(f"({OUTCOMES[self.outcome]})"))
        if self.text:
            parts.append(Condition("contains(folded(id), lower(?))", (self.text,)))
        if self.queue:
            parts.append(Condition("n IN (SELECT n FROM queued WHERE queue = ?)", (self.queue,)))
        if self.cluster:
            parts.append(Condition("n IN (SELECT n FROM clustered WHERE cluster = ?)", (self.cluster,)))
        if self.decision == "none":
            parts.append(Condition("id NOT IN (SELECT id FROM decided)"))
        elif self.decision == "any":
            parts.append(Condition("id IN (SELECT id FROM decided)"))
        elif self.decision:
            parts.append(Condition("id IN (SELECT id FROM decided WHERE kind = ?)", (self.decision,)))
        if self.second:
            parts.append(Condition(f"({RELATIONS[self.second]})"))
        if self.region:
            sql = "n IN (SELECT n FROM embedded WHERE kind = ? AND x BETWEEN ? AND ? AND y BETWEEN ? AND ?)"
            parts.append(Condition(sql, (self.region.kind, *self.region.edges)))
        if self.sql:  # on lines of its own, so that a comment in it ends there
            parts.append(Condition(f"(\n{self.sql}\n)"))
        return Condition(
            " AND ".join(part.sql for part in parts) or "true", tuple(value for part in parts for value in part.values)
        )


def parse_filter(asked: Any, columns: Sequence[str]) -> RowFilter:
    """Check a filter that came as JSON.

    Args:
        asked: An object with the fields of `RowFilter`.
        columns: Names that may have a range.

    Raises:
        UsageError: Naming the field, the value and what is allowed.
    """
    if not isinstance(asked, Mapping):
        raise UsageError(f"a filter must be an object, got {asked!r}")
    if unknown := [name for name in asked if name not in FIELDS]:
        raise UsageError(f"a filter has no field {unknown[0]!r}{did_you_mean(str(unknown[0]), FIELDS)}; it has {', '.join(FIELDS)}")  # fmt: skip
    ranges = asked.get("ranges", {})
    if not isinstance(ranges, Mapping):
        raise UsageError(f"ranges must be an object of [low, high] by column, got {ranges!r}")
    row_filter = RowFilter(
        ranges={_column(name, columns): _range(name, ends) for name, ends in ranges.items()},
        label=_integers("label", asked), prediction=_integers("prediction", asked),
        status=tuple(_list("status", asked, str)),
        **{name: _text(name, asked) for name in ("outcome", "text", "queue", "cluster", "decision", "second", "sql")},
        region=Region.parse(region) if (region := _text("region", asked)) else None,
        targets=_text("targets", asked) or "main",
    )  # fmt: skip
    if row_filter.outcome and row_filter.outcome not in OUTCOMES:
        raise UsageError(f"outcome {row_filter.outcome!r} is unknown; choose {', '.join(OUTCOMES)}")
    if row_filter.second and row_filter.second not in RELATIONS:
        raise UsageError(f"second {row_filter.second!r} is unknown; choose {', '.join(RELATIONS)}")
    if row_filter.targets not in ("main", "all"):
        raise UsageError(f"targets must be 'main' or 'all', got {row_filter.targets!r}")
    if row_filter.sql:
        _check_sql(row_filter.sql)
    return row_filter


def _check_sql(condition: str) -> None:
    """Refuse a condition that would not stay inside its parentheses.

    Raises:
        UsageError: If it is too long, or is not one condition.
    """
    if len(condition) > LONGEST_SQL:
        raise UsageError(f"the condition has {len(condition):,} characters; at most {LONGEST_SQL:,} are accepted")
    with duckdb.connect() as connection:
        try:
            duckdb.SQLExpression(
                condition
            )  # parses exactly one expression, so that the condition cannot leave its parentheses
            statements = connection.extract_statements(f"SELECT (\n{condition}\n)")
        except duckdb.Error as error:
            raise UsageError(f"DuckDB does not understand the condition {condition!r}: {sql_refusal(error)}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UsageError(f"{condition!r} is not one condition over the columns, such as ebpg < 0.2 AND correct")
    if statements[0].named_parameters:
        raise UsageError(f"{condition!r} has parameters; write the values themselves")


def _column(name: Any, columns: Sequence[str]) -> str:
    if name not in columns:
        raise UsageError(f"there is no histogram of {name!r}{did_you_mean(str(name), columns)}; there are {', '.join(columns)}")  # fmt: skip
    return str(name)


def _range(name: Any, ends: Any) -> tuple[float | None, float | None]:
    if not isinstance(ends, Sequence) or len(ends) != 2 or not all(end is None or _is_number(end) for end in ends):
        raise UsageError(f"the range of {name} must be [low, high], each a number or null, got {ends!r}")
    low, high = (None if end is None else float(end) for end in ends)
    return low, high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _list(name: str, asked: Mapping[str, Any], kind: type) -> list[Any]:
    values = asked.get(name) or []
    if not isinstance(values, list) or len(values) > MOST_VALUES or not all(type(value) is kind for value in values):
        raise UsageError(f"{name} must be a list of at most {MOST_VALUES:,} values of type {kind.__name__}")
    return values


def _integers(name: str, asked: Mapping[str, Any]) -> tuple[int, ...]:
    values = _list(name, asked, int)
    if any(abs(value) >= 2**31 for value in values):
        raise UsageError(f"{name} must be class indices")
    return tuple(values)


def _text(name: str, asked: Mapping[str, Any]) -> str:
    value = asked.get(name) or ""
    if not isinstance(value, str) or len(value) > 4 * LONGEST_SQL:
        raise UsageError(f"{name} must be text")
    return value
