"""Gather the facts of every labelled class: accuracy, what it is taken for, and how far its maps lie on the object."""

from __future__ import annotations

from collections.abc import Iterator

from ..report.classes import ClassFacts, class_facts, suspicion_rule
from ..report.rows import ReportRows
from ..report.scores import run_scores
from .facts import Facts

MOSTLY_OFF_SHARE = 0.5


def class_summaries(rows: ReportRows) -> Iterator[tuple[ClassFacts, Facts]]:
    """Classes that the data set names, the one to look at first first."""
    scores = run_scores(rows, resamples=1)
    chance = scores.get("ebpg", {}).get("random")
    for facts in class_facts(rows, suspicion_rule(rows, scores)):
        yield facts, _facts(facts, chance)


def _facts(facts: ClassFacts, chance: float | None) -> Facts:
    conditions = set()
    shares: dict[str, float | None] = {
        "accuracy": facts.accuracy,
        "on_object": facts.means.get("ebpg"),
        "border": facts.means.get("border_share"),
    }
    if shares["on_object"] is not None:
        shares |= {"chance_on_object": chance, "border": None}
    counts = {"images": facts.images, "right": facts.right, "answered": facts.answered, "failed": facts.failed}
    names = {"name": facts.name}
    if facts.of:
        shares["off_object_share"] = facts.share
        counts |= {"off_object": facts.suspicious, "judged": facts.of}
        conditions.add("is_judged")
        if (facts.share or 0) >= MOSTLY_OFF_SHARE:
            conditions.add("mostly_off_object")
    if facts.taken:
        names["taken_for"] = facts.taken_for
        counts["taken"] = facts.taken
        conditions.add("is_taken_for_another")
    if facts.failed:
        conditions.add("has_failures")
    kept = {name: float(value) for name, value in shares.items() if value is not None}
    return Facts(kept, counts, names, conditions=frozenset(conditions | {f"has_{name}" for name in kept}))
