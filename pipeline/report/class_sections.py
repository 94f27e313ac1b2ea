"""The classes to look at first, each with images, links to its rows in the table, and the review queues in which it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .cards import Card, CardMaker
from .classes import ClassFacts, Suspicion
from .derived import Derived, Queue
from .galleries import chosen
from .rows import ReportRows

SECTIONS = 8
EXAMPLES = 4


@dataclass(frozen=True)
class ClassSection:
    """One class."""

    facts: ClassFacts
    rows: list[dict[str, Any]]
    """Its most confident mistakes, then the correct predictions whose maps lie least on the object."""
    queues: list[tuple[Queue, int]]
    """Queues that hold images labelled so, and how many."""
    cards: list[Card] = field(default_factory=list)


def choose_class_sections(
    rows: ReportRows, classes: Sequence[ClassFacts], rule: Suspicion | None, beside: Derived
) -> list[ClassSection]:
    """Sections for the first classes, in their order."""
    return [
        ClassSection(facts, _examples(rows, facts.index, rule), _queues(beside, facts.index))
        for facts in classes[:SECTIONS]
    ]


def with_class_cards(sections: Sequence[ClassSection], cards: CardMaker, rule: Suspicion | None) -> list[ClassSection]:
    """The same, with a card for every row."""
    shown = (rule.metric,) if rule else ()
    return [
        ClassSection(section.facts, section.rows, section.queues, [cards.card(row, shown) for row in section.rows])
        for section in sections
    ]


def _examples(rows: ReportRows, index: int, rule: Suspicion | None) -> list[dict[str, Any]]:
    wrong, _ = chosen(rows, f"label = {int(index)} AND prediction <> label", "confidence DESC", EXAMPLES // 2)
    order = "confidence DESC" if rule is None else f"{rule.metric} {'ASC' if rule.metric == 'ebpg' else 'DESC'}"
    right, _ = chosen(rows, f"label = {int(index)} AND prediction = label", order, EXAMPLES - len(wrong))
    return [*wrong, *right]


def _queues(beside: Derived, index: int) -> list[tuple[Queue, int]]:
    return [(queue, queue.by_label[index]) for queue in beside.queues if queue.by_label.get(index)]
