"""The lines of a verdict: each a number of the models before and after, its interval, and better, no evidence or worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ..statistics.paired_tests import SIGNIFICANT, holm
from ..statistics.seed_differences import SeedDifference, seed_difference
from ..text import class_name
from .image_decisions import DecidedImage
from .locked_split import FEWEST_IMAGES
from .set_predictions import NOTHING, Predictions, SetPredictions

Word = Literal["better", "no evidence", "worse"]
Values = Callable[[SetPredictions], np.ndarray]
"""A number per image in [-1, 1], NaN where it has none."""


@dataclass(frozen=True)
class Line:
    """One number of both groups of models."""

    name: str
    higher_is_better: bool
    judged: bool
    """Whether it counts towards the verdict; what a mark raises by itself is only shown."""
    measured: SeedDifference
    p_holm: float = 1.0
    """Corrected for all judged lines, or for all that are only shown."""
    word: Word = "no evidence"
    reliance: int | None = None
    """Class on whose mark it measures the models' reliance."""
    asked: bool = False
    """Whether it measures what decisions ask for: a mark that is pasted says nothing any more, decided labels are predicted."""
    pair_words: tuple[Word, ...] = field(default=())
    """The same for the first model before and the first after, the second and the second, ...: by images alone, without correction."""

    @property
    def harms(self) -> bool:
        """Whether its interval, uncorrected, lies wholly on the side of harm."""
        measured = self.measured
        return self.counts and (measured.high < 0 if self.higher_is_better else measured.low > 0)

    @property
    def counts(self) -> bool:
        """Whether it has enough images."""
        return self.measured.images >= FEWEST_IMAGES

    @property
    def note(self) -> str:
        return "" if self.counts else f"{self.measured.images} images are too few"


def verdict_lines(
    images: Sequence[DecidedImage],
    before: Sequence[SetPredictions],
    after: Sequence[SetPredictions],
    class_names: Sequence[str],
) -> list[Line]:
    """All lines, those that are judged first.

    Args:
        images: The test split, in the order of the predictions.
        before: One per model.
        after: One per model.
        class_names: Of the models.
    """
    old, new = (np.array([NOTHING if label is None else label for label in labels]) for labels in (
        [image.label for image in images], [image.new_label for image in images],
    ))  # fmt: skip
    carried = np.array([NOTHING if image.mark is None else image.mark for image in images])
    marks = list(before[0].pasted)
    lines: list[Line] = []

    def add(
        name: str,
        values: Values,
        *,
        judged: bool,
        higher: bool = True,
        reliance: int | None = None,
        asked: bool = False,
    ) -> None:
        tables = [np.stack([values(model) for model in models]) for models in (before, after)]
        measured = seed_difference(tables[0], tables[1])
        if measured is None:
            return
        pairs = [
            seed_difference(earlier[None], later[None]) for earlier, later in zip(tables[0], tables[1], strict=False)
        ]
        words: tuple[Word, ...] = tuple(word_of(pair, pair.p, higher) for pair in pairs if pair is not None)
        lines.append(Line(name, higher, judged, measured, reliance=reliance, asked=asked, pair_words=words))

    without = " without their marks" if marks else ""
    add(f"accuracy{without}", lambda model: right(model.removed, old), judged=True)
    if (changed := (old != new)).any():
        add(f"accuracy{without}, decided labels", lambda model: right(model.removed, new), judged=True, asked=True)
    for mark in marks:
        name = class_name(class_names, mark)
        own, others = carried == mark, (carried == NOTHING) & (old != mark) & (old != NOTHING)
        add(f"reliance on the mark of {name}, pasted: called {name} beyond control",
            lambda model, mark=mark, own=others: turned(model, mark, own), judged=True, higher=False, reliance=mark, asked=True)  # fmt: skip
        add(f"reliance on the mark of {name}, removed: no longer {name} beyond control",
            lambda model, mark=mark, own=own: lost(model, mark, own), judged=True, higher=False, reliance=mark)  # fmt: skip
        add(
            f"accuracy with the mark of {name} pasted",
            lambda model, mark=mark: right(model.pasted[mark], old),
            judged=True,
        )
    add("object share of the map (EBPG of Grad-CAM)", lambda model: model.ebpg, judged=True)
    if (carried != NOTHING).any():
        add("accuracy as they are (a mark helps)", lambda model: right(model.plain, old), judged=False)
    if changed.any():
        add("accuracy as they are, decided labels", lambda model: right(model.plain, new), judged=False)
        add("accuracy on images whose label was decided anew",
            lambda model: np.where(changed, right(model.plain, new), np.nan), judged=False)  # fmt: skip
    for label in sorted(set(old.tolist()) - {NOTHING}):
        name, members = class_name(class_names, label), old == label
        add(
            f"class {name}{without}",
            lambda model, own=members: np.where(own, right(model.removed, old), np.nan),
            judged=False,
        )
        if (own := members & (carried != NOTHING)).any():
            add(
                f"group {name} with a mark",
                lambda model, own=own: np.where(own, right(model.plain, old), np.nan),
                judged=False,
            )
            own = members & (carried == NOTHING)
            add(
                f"group {name} without a mark",
                lambda model, own=own: np.where(own, right(model.plain, old), np.nan),
                judged=False,
            )
    return [line for judged in (True, False) for line in tested([line for line in lines if line.judged == judged])]


def tested(lines: Sequence[Line]) -> list[Line]:
    """The lines with their words, corrected together for how many they are."""
    corrected = holm([line.measured.p for line in lines])
    return [
        replace(line, p_holm=p, word=word_of(line.measured, p, line.higher_is_better))
        for line, p in zip(lines, corrected, strict=True)
    ]


def word_of(measured: SeedDifference, p: float, higher_is_better: bool) -> Word:
    """What may be said."""
    if measured.images < FEWEST_IMAGES or p >= SIGNIFICANT or measured.difference == 0:
        return "no evidence"
    return "better" if (measured.difference > 0) == higher_is_better else "worse"


def right(predictions: Predictions, labels: Predictions) -> np.ndarray:
    """1 where the prediction is the label, 0 where it is another class, NaN without either."""
    there = (predictions != NOTHING) & (labels != NOTHING)
    return np.where(there, predictions == labels, np.nan)


def turned(model: SetPredictions, mark: int, own: np.ndarray) -> np.ndarray:
    """Whether an image of another class is called the mark's class with the mark pasted, minus the same with the control region."""
    there = own & (model.pasted[mark] != NOTHING)
    values = (model.pasted[mark] == mark).astype(float) - (model.pasted_control[mark] == mark)
    return np.where(there, values, np.nan)


def lost(model: SetPredictions, mark: int, own: np.ndarray) -> np.ndarray:
    """Whether an image that carries the mark is no longer called its class without it, minus the same with a control region removed."""
    there = own & (model.control != NOTHING)
    values = (model.control == mark).astype(float) - (model.removed == mark)
    return np.where(there, values, np.nan)
