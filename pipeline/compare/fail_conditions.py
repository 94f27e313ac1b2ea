"""`--fail-if`: conditions on a comparison by which continuous integration fails."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...errors import UsageError, did_you_mean
from .compare import Comparison

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*")
EXAMPLE = "ebpg < -0.02"


@dataclass(frozen=True)
class FailCondition:
    """A limit on one number of a comparison."""

    name: str
    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        return OPERATORS[self.sign](value, self.limit)

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.limit:g}"


def parse_conditions(texts: Iterable[str]) -> list[FailCondition]:
    """Conditions such as `ebpg < -0.02`.

    Raises:
        UsageError: For a text of another form.
    """
    conditions = []
    for text in texts:
        match = CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(f'--fail-if {text!r} is not NAME < NUMBER (or <=, >, >=), such as "{EXAMPLE}"')
        conditions.append(FailCondition(match[1], match[2], float(match[3])))
    return conditions


def comparable_numbers(comparison: Comparison) -> dict[str, float | None]:
    """Numbers that a condition can name: per metric the change of its mean from the first run to the second over the pairs;
    `accuracy`, its change; `changed`, the share of predictions that changed; `distance`, the mean distance of the maps."""
    numbers: dict[str, float | None] = {
        row["metric"]: None if row["difference"] is None else -row["difference"] for row in comparison.metrics
    }
    answers, far = comparison.predictions, comparison.distances
    before, after = answers.accuracy
    return {
        **numbers,
        "accuracy": None if before is None or after is None else after - before,
        "changed": answers.changed / answers.images if answers.images else None,
        "distance": float(far.mean()) if len(far) else None,
    }


def failed_conditions(comparison: Comparison, conditions: Iterable[FailCondition]) -> list[str]:
    """The conditions that hold, each with the number that it is about.

    Raises:
        UsageError: For a name that the comparison has no number for.
    """
    numbers, lines = comparable_numbers(comparison), []
    for condition in conditions:
        value = numbers.get(condition.name)
        if condition.name not in numbers:
            raise UsageError(f"--fail-if {str(condition)!r}: the comparison has no number {condition.name!r}"
                             f"{did_you_mean(condition.name, numbers)}; it has {', '.join(numbers)}")  # fmt: skip
        if value is None:
            raise UsageError(
                f"--fail-if {str(condition)!r}: no pair of images has a {condition.name}, so it cannot be judged"
            )
        if condition.holds(value):
            lines.append(f"failed: {condition} holds: {condition.name} changed by {value:+.4g}" if condition.name in {row["metric"] for row in comparison.metrics} | {"accuracy"}
                         else f"failed: {condition} holds: {condition.name} is {value:.4g}")  # fmt: skip
    return lines
