"""Compare the predictions of two networks by what people decided: images with and without a mark, and labels decided anew.

A network that hangs on a mark is right on images that carry it, so an accuracy over all images votes for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..decisions.current import Decisions
from ..decisions.record import current_decisions
from .pairs import Pairs
from .predictions import first_of_image, mcnemar


@dataclass(frozen=True)
class DecidedGroup:
    """Some images by decisions, each once."""

    name: str
    """`with a mark`, `without a mark`, or `labels decided anew` (right is what was decided)."""
    images: int
    right: tuple[int, int]
    p: float
    """McNemar's exact test of equal accuracy, two-sided."""

    @property
    def accuracy(self) -> tuple[float, float]:
        return self.right[0] / self.images, self.right[1] / self.images


def decided_groups(pairs: Pairs) -> list[DecidedGroup]:
    """The groups that have images; empty without decisions about marks or labels.

    Decisions of both stores hold; where both have one about an image, the first store's.

    Raises:
        StorageError: If a file of decisions cannot be read.
    """
    marked, labels = set[str](), dict[str, str]()
    for decisions in dict.fromkeys(side.atlas.uri for side in reversed(pairs.sides)):
        _collect(current_decisions(decisions), marked, labels)
    if not marked and not labels:
        return []
    table, once = pairs.table, first_of_image(pairs)
    ids = np.array(table["id"].to_pylist(), dtype=object)
    stated, first, second = (
        table[name].to_numpy().astype(np.float64) for name in ("label", "first_prediction", "second_prediction")
    )
    index = {name: place for place, name in enumerate(pairs.class_names)}
    decided = np.array([index.get(labels.get(identity, ""), np.nan) for identity in ids], np.float64)
    carries = np.array([identity in marked for identity in ids], bool)
    there = once & ~np.isnan(first) & ~np.isnan(second)
    groups: list[DecidedGroup] = []

    def add(name: str, own: np.ndarray, truth: np.ndarray) -> None:
        groups.extend(_group(name, there & own & ~np.isnan(truth), truth, first, second))

    if marked:
        add("with a mark", carries, stated)
        add("without a mark", ~carries, stated)
    if labels:
        add("labels decided anew", ~np.isnan(decided), decided)
    return groups


def _collect(decisions: Decisions, marked: set[str], labels: dict[str, str]) -> None:
    for decision in decisions.current:
        if decision.object_id is not None:
            continue
        if decision.kind == "shortcut":
            marked.add(decision.id)
        elif decision.kind == "relabel" and decision.label_name is not None:
            labels[decision.id] = decision.label_name


def _group(name: str, own: np.ndarray, truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[DecidedGroup]:
    if not own.any():
        return []
    right = first[own] == truth[own], second[own] == truth[own]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return [DecidedGroup(name, int(own.sum()), (int(right[0].sum()), int(right[1].sum())), mcnemar(*only))]
