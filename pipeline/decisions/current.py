"""Resolve a log of decisions: which one holds for each image, and where two people are at odds. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from .decision import SCHEMA, UNDO, Decision

Key = tuple[str, str, str]
"""Id, object id (empty for the whole image) and kind-group."""


@dataclass(frozen=True)
class Decisions:
    """What holds now."""

    current: tuple[Decision, ...]
    """The latest of every (id, object_id, kind-group) that is not undone, by these."""
    conflicts: tuple[tuple[Decision, ...], ...]
    """Decisions about the same that differ, by different people, none of which answers the other; the one that holds first."""
    undone: int
    """Decisions that were taken back."""

    def table(self) -> pa.Table:
        """The current decisions, as `SCHEMA`."""
        return pa.Table.from_pylist([decision.record() for decision in self.current], schema=SCHEMA)

    def conflict_table(self) -> pa.Table:
        """All decisions that are at odds, as `SCHEMA`, and `wins`: whether the decision holds."""
        rows = [
            {**decision.record(), "wins": place == 0}
            for group in self.conflicts
            for place, decision in enumerate(group)
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA.append(pa.field("wins", pa.bool_())))


def resolve(log: Sequence[Decision]) -> Decisions:
    """What holds of a log of decisions.

    Args:
        log: By time, as `read_decisions` gives it.
    """
    cancelled = cancelled_ids(log)
    groups: dict[Key, list[Decision]] = defaultdict(list)
    for decision in log:
        if decision.kind != UNDO and decision.decision_id not in cancelled:
            groups[decision.id, decision.object_id or "", decision.group].append(decision)
    ordered = [groups[key] for key in sorted(groups)]
    conflicts = [rivals for group in ordered if (rivals := _rivals(group))]
    undone = sum(decision.kind != UNDO and decision.decision_id in cancelled for decision in log)
    return Decisions(tuple(group[-1] for group in ordered), tuple(conflicts), undone)


def cancelled_ids(log: Iterable[Decision]) -> frozenset[str]:
    """Ids of the decisions that an undo took back; an undo that was undone itself takes nothing back."""
    undos: dict[str, list[str]] = defaultdict(list)
    for decision in log:
        if decision.kind == UNDO and decision.supersedes and decision.decision_id:
            undos[decision.supersedes].append(decision.decision_id)
    state: dict[str, bool] = {}

    def is_cancelled(identity: str) -> bool:
        if identity not in state:
            state[identity] = True  # for a circle, which only a foreign hand could write
            state[identity] = any(not is_cancelled(undo) for undo in undos.get(identity, ()))
        return state[identity]

    return frozenset(identity for identity in list(undos) if is_cancelled(identity))


def _rivals(group: Sequence[Decision]) -> tuple[Decision, ...]:
    """The decision that holds and, of every other person, the latest one that differs and was not answered."""
    winner, answered = group[-1], {decision.supersedes for decision in group if decision.supersedes}
    latest = {decision.who: decision for decision in group}
    others = [
        decision
        for who, decision in latest.items()
        if who != winner.who and decision.content != winner.content and decision.decision_id not in answered
    ]
    return (winner, *others) if others else ()
