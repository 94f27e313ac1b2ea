"""Sum up a comparison in one or two sentences: which run predicts better, which metrics differ, how far explanations moved."""

from __future__ import annotations

from ..html.texts import percent
from ..statistics.paired_tests import SIGNIFICANT
from ..text import counted
from .compare import Comparison
from .marked_groups import DecidedGroup
from .text import p_text


def verdict_text(comparison: Comparison) -> str:
    """The verdict as plain text; differences that may be chance are called none."""
    return " ".join([*_predictions(comparison), *_metrics(comparison), *_movement(comparison)])


def _predictions(comparison: Comparison) -> list[str]:
    answers = comparison.predictions
    if not answers.images:
        return []
    if not answers.changed:
        return [f"Both runs predict the same class for all {counted(answers.images, 'image')}."]
    if not answers.labelled or answers.p is None:
        return [f"The runs predict different classes for {answers.changed:,} of {counted(answers.images, 'image')}."]
    first, second = answers.accuracy
    shares = f"{percent(first)} and {percent(second)} correct of {counted(answers.labelled, 'image')}, McNemar p {p_text(answers.p)}"
    without = next((group for group in comparison.decided if group.name == "without a mark"), None)
    if without is not None:
        return [_without_marks(comparison, without)]
    if answers.p >= SIGNIFICANT:
        return [f"Neither run predicts better than the other beyond chance ({shares})."]
    better = "first" if answers.only[0] > answers.only[1] else "second"
    return [f"The {better} run predicts better ({shares})."]


def _without_marks(comparison: Comparison, group: DecidedGroup) -> str:
    """Which run predicts better on images that carry no mark: those that do favour whoever hangs on it."""
    marked = next((other.images for other in comparison.decided if other.name == "with a mark"), 0)
    first, second = group.accuracy
    shares = f"{percent(first)} and {percent(second)} correct of {counted(group.images, 'image')}, McNemar p {p_text(group.p)}"
    aside = f"{counted(marked, 'image')} with a mark left aside, on which a network is right that hangs on it"
    if group.p >= SIGNIFICANT:
        return f"On images without a mark neither run predicts better than the other beyond chance ({shares}; {aside})."
    better = "first" if group.right[0] > group.right[1] else "second"
    return f"On images without a mark the {better} run predicts better ({shares}; {aside})."


def _metrics(comparison: Comparison) -> list[str]:
    if not comparison.metrics:
        return []
    judged = [metric for metric in comparison.metrics if metric["better"] in ("higher", "lower")]
    count = {side: sum(metric["favours"] == side for metric in judged) for side in ("first", "second")}
    if not judged:
        return ["None of the common metrics has a better end."]
    if not any(count.values()):
        return [f"None of the {counted(len(judged), 'metric')} with a better end favours either run after correction."]
    rest = len(judged) - sum(count.values())
    return [f"Of {counted(len(judged), 'metric')} with a better end, {count['first']} favour the first run, {count['second']} the second, "
            f"and {rest} neither after correction."]  # fmt: skip


def _movement(comparison: Comparison) -> list[str]:
    far = comparison.distances
    if not len(far):
        return []
    return [
        f"Where the prediction stayed, on average {percent(float(far.mean()))} of a map's mass lies elsewhere in the other run."
    ]
