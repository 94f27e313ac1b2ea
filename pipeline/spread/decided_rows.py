"""The rows of a class, and what people decided about them: labels to spread, and regions to look for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from ..decisions.current import resolve
from ..decisions.decision import UNDO, Decision
from ..decisions.rle import Rle
from ..intervene.groups_of_rows import ExplainedRow
from .label_spread import UNKNOWN

SPREAD = "spread"
"""Source of decisions that were spread: they are no evidence themselves."""
FEWEST_EACH = 3
"""Decisions of either kind without which a class is not judged."""


@dataclass(frozen=True, eq=False)
class DecidedClass:
    """One class in which somebody decided on a shortcut."""

    target: int
    rows: tuple[ExplainedRow, ...]
    """Labelled or predicted as the class, and decided ones of other classes that do not carry the mark; each explains its prediction."""
    labels: Int[np.ndarray, " row"]
    """1 for `shortcut`, 0 for `core` or `ok`, `UNKNOWN` for the others."""
    painted: dict[int, Rle] = field(default_factory=dict)
    """By row number, where the shortcut was painted."""

    @property
    def lacks(self) -> str | None:
        """Why it cannot be judged; None where it can."""
        marked, clean = int((self.labels == 1).sum()), int((self.labels == 0).sum())
        if min(marked, clean) >= FEWEST_EACH:
            return None
        return f"{marked} shortcut and {clean} core or ok decisions (of any class), {FEWEST_EACH} of each are needed (20 to 40 in all are better)"


def people_decided(log: Sequence[Decision]) -> dict[str, dict[str, Decision]]:
    """What people, not `heatlas spread`, decided and holds: by id and kind-group, for whole images."""
    by_id: dict[str, dict[str, Decision]] = defaultdict(dict)
    spread_ids = {decision.decision_id for decision in log if decision.source == SPREAD}
    own = [
        decision
        for decision in log
        if decision.source != SPREAD and not (decision.kind == UNDO and decision.supersedes in spread_ids)
    ]
    for decision in resolve(own).current:
        if decision.object_id is None:
            by_id[decision.id][decision.group] = decision
    return dict(by_id)


def decided_classes(rows: Sequence[ExplainedRow], decided: dict[str, dict[str, Decision]]) -> list[DecidedClass]:
    """The classes whose mark somebody found, by class. Of each its images, and from other classes those that somebody found to be without."""
    predicted = [row for row in rows if row.target == row.prediction]
    marks = {row.id: mark for row in predicted if (mark := mark_class(row, decided.get(row.id, {}))) is not None}
    classes = []
    for target in sorted(set(marks.values())):
        own = [
            row for row in predicted if target in (row.prediction, row.label) or _label(decided.get(row.id, {})) == 0
        ]
        labels = np.array(
            [
                (1 if marks[row.id] == target else UNKNOWN) if row.id in marks else _label(decided.get(row.id, {}))
                for row in own
            ],
            np.int64,
        )
        painted = {
            place: mask
            for place, row in enumerate(own)
            if labels[place] == 1 and (mask := decided[row.id]["shortcut"].mask) is not None
        }
        classes.append(DecidedClass(target, tuple(own), labels, painted))
    return classes


def mark_class(row: ExplainedRow, groups: dict[str, Decision]) -> int | None:
    """The class whose mark an image carries: the decision's `target`, else what is predicted; None without a decision."""
    if "shortcut" not in groups:
        return None
    target = groups["shortcut"].target
    return row.prediction if target is None else target


def _label(groups: dict[str, Decision]) -> int:
    """0 for an image that somebody found to be without a mark."""
    if "shortcut" in groups:
        return UNKNOWN
    if "core" in groups or ("label" in groups and groups["label"].kind == "ok"):
        return 0
    return UNKNOWN
