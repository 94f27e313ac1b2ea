"""Which reading of the labels holds: where several are possible and differ, or only custom gives an order of the classes, the model's own
predictions are asked, and where they do not say it is refused with the choices named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ....errors import DataError
from .label_readings import LabelReading

AHEAD = 0.2
"""Share of the probe images by which the right reading must explain more predictions than any other."""
SURE = 0.9
"""Share of the probe images that another order of the classes must explain for the customary one to be refused."""
SIGNIFICANT = 0.001
"""Level of the exact McNemar test between the best reading and each other."""


@dataclass(frozen=True)
class Predicted:
    """What the model predicts for some labelled images."""

    labels: np.ndarray
    """`(image,)` position of each one's label among the distinct labels."""
    predictions: np.ndarray
    """`(image,)` class indices."""


def choose_reading(
    readings: Sequence[LabelReading], predicted: Callable[[], Predicted] | None
) -> tuple[LabelReading, str]:
    """The one reading that holds, and a sentence on why.

    Args:
        readings: As `possible_readings` gives them.
        predicted: Classifies some labelled images; called only where there is a choice. None where there is no model to ask.

    Raises:
        DataError: If several readings are possible and the predictions do not tell which holds.
    """
    only = readings[0] if len(readings) == 1 else None
    if only is not None and (predicted is None or (only.chance is None and not only.unproven)):
        return only, f"labels are read by {_either(only.names)}"
    answers = predicted() if predicted is not None else Predicted(np.empty(0, int), np.empty(0, int))
    if only is not None and only.unproven:
        return only, _held_against(only, answers)
    right = np.array([_right(reading, answers) for reading in readings])
    counts, images = right.sum(axis=1), right.shape[1]
    best = int(counts.argmax())
    others = [number for number in range(len(readings)) if number != best]
    told = ", ".join(f"{_either(reading.names)} {count}" for reading, count in zip(readings, counts, strict=True))
    if (
        images
        and _above_chance(right[best], readings[best].chance)
        and all(_clearly(right[best], right[number]) for number in others)
    ):
        return readings[best], (
            f"labels are read by {_either(readings[best].names)}, which explains the predictions of {counts[best]} of {images} "
            f"labelled images ({told}; exact McNemar p < {SIGNIFICANT})"
        )
    if len(readings) == 1:
        raise DataError(
            f"none of the labels is one of the model's class names, and taken by {told.rpartition(' ')[0]} they explain {counts[0]} of {images} "
            f"predictions, no better than chance; rename them as the model does, give the model's own order with --labels.order file:PATH, "
            f"or insist with {' or '.join(readings[0].flags)}"
        )
    if customary := [reading for reading in readings if reading.customary]:
        return customary[0], (
            f"labels are read by {_either(customary[0].names)}, as is customary; {images} predictions do not tell it from "
            f"{' or '.join(_either(reading.names) for reading in readings if reading is not customary[0])}"
        )
    choices = "; ".join(f"{' or '.join(reading.flags)} ({_example(reading)})" for reading in readings)
    why = (
        f"{images} labelled images do not tell which holds ({told} predictions explained)"
        if images
        else "no prediction tells which holds"
    )
    raise DataError(
        f"the labels can be read as class indices in {len(readings)} ways, and {why}; say how the model was trained: {choices}; "
        "or --labels.order file:PATH with one class name a line in the model's order"
    )


def _held_against(reading: LabelReading, answers: Predicted) -> str:
    """What to say of a customary order.

    Raises:
        DataError: If the model is right by another order of the classes.
    """
    right, images = _right(reading, answers), len(answers.labels)
    text = f"labels are read by {_either(reading.names)}"
    if not images:
        return text
    text += f", which explains the predictions of {int(right.sum())} of {images} labelled images"
    other = _by_best_order(answers)
    if not _clearly(other, right):
        return text
    if other.mean() >= SURE:
        raise DataError(
            f"{text}, while another order of the classes explains {int(other.sum())}: the model was trained in another order; give it with "
            f"--labels.order file:PATH, one class name a line, or insist with {' or '.join(reading.flags)}"
        )
    return f"{text}; another order of the classes explains {int(other.sum())}, so check it"


def _by_best_order(answers: Predicted) -> np.ndarray:
    """`(image,)` whether the prediction follows from the label by the order of the classes that fits the other half of the images best."""
    from scipy.optimize import linear_sum_assignment

    right = np.zeros(len(answers.labels), bool)
    turn = np.zeros(len(answers.labels), int)
    for label in np.unique(answers.labels):
        turn[answers.labels == label] = np.arange((answers.labels == label).sum()) % 2
    size = int(max(answers.labels.max(), answers.predictions.max())) + 1
    for half in (0, 1):
        fit, held = turn != half, turn == half
        counts = np.zeros((size, size), int)
        np.add.at(counts, (answers.labels[fit], answers.predictions[fit]), 1)
        rows, columns = linear_sum_assignment(-counts)
        place = np.empty(size, int)
        place[rows] = columns
        right[held] = place[answers.labels[held]] == answers.predictions[held]
    return right


def _right(reading: LabelReading, answers: Predicted) -> np.ndarray:
    classes = np.array([-1 if index is None else index for index in reading.indices], dtype=np.int64)
    return classes[answers.labels] == answers.predictions


def _above_chance(right: np.ndarray, chance: float | None) -> bool:
    from scipy import stats

    if chance is None:
        return True
    return float(stats.binomtest(int(right.sum()), len(right), chance, alternative="greater").pvalue) < SIGNIFICANT


def _clearly(best: np.ndarray, other: np.ndarray) -> bool:
    from scipy import stats

    only_best, only_other = int((best & ~other).sum()), int((other & ~best).sum())
    if best.mean() - other.mean() < AHEAD or not only_best + only_other:
        return False
    return float(stats.binomtest(only_best, only_best + only_other).pvalue) < SIGNIFICANT


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def _example(reading: LabelReading) -> str:
    if reading.class_names is None:
        return reading.names[0]
    few = ", ".join(map(repr, reading.class_names[:3]))
    return f"{reading.names[0]}: {few}, ... are classes 0, 1, 2, ..."
