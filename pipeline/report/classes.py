"""Every class: how many images, how often right, whether the maps lie on the object, and which class to look at first.

Suspicious is a right answer whose map lies elsewhere: with less of it on the marked object than a map that knows nothing has
there (the random floor, measured on the run's own images), or, where no object is marked, with more of it in the border than an
even map has. Classes are ranked by the lower end of the interval of that share, so that three images make no scandal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..store.sql import quoted
from .plain_words import LOCALISATION, name_of
from .rows import ReportRows
from .scores import wilson

EVEN_BORDER = 0.36
"""Share of the image that lies in the frame of `border_share`, and so of an even map's mass."""
FALLBACK_FLOOR = 0.1
SHOWN = 500
FEWEST = 5
"""Right answers from which a class can be called suspicious."""


@dataclass(frozen=True)
class Suspicion:
    """The rule by which a right answer is suspicious."""

    metric: str
    condition: str
    """SQL."""
    text: str
    """What it says of an answer, after `answers`."""
    threshold: float


@dataclass(frozen=True)
class ClassFacts:
    """One class of the data set."""

    index: int
    name: str
    images: int
    failed: int
    answered: int
    """Images with a prediction."""
    right: int
    accuracy: float | None
    interval: tuple[float, float] | None
    means: dict[str, float | None]
    """Mean of each localisation metric, or of `border_share` where there is none."""
    suspicious: int
    of: int
    """Right answers that can be judged."""
    share: float | None
    least: float
    """Lower end of the interval of `share`."""
    taken_for: str
    """The class that its wrong answers name most often; empty for none."""
    taken: int


def suspicion_rule(rows: ReportRows, scores: dict[str, dict[str, Any]]) -> Suspicion | None:
    """The rule for this store; None where it has neither a marked object nor `border_share`."""
    if "ebpg" in rows.metrics:
        floor = scores.get("ebpg", {}).get("random")
        chance = FALLBACK_FLOOR if floor is None else floor
        beside = "a tenth" if floor is None else f"{chance:.2f}, what a random map has there"
        return Suspicion("ebpg", f"ebpg < {chance!r}", f"with less of the map on the object than {beside}", chance)
    if "border_share" in rows.metrics:
        text = f"with more of the map in the border than the {EVEN_BORDER} of an even map"
        return Suspicion("border_share", f"border_share > {EVEN_BORDER!r}", text, EVEN_BORDER)
    return None


def class_columns(rows: ReportRows) -> list[str]:
    """The metrics that the table of classes shows."""
    found = [name for name in LOCALISATION if name in rows.metrics and name != "relevance_rank_accuracy"]
    return [*found, *(["border_share"] if "border_share" in rows.metrics else [])]


def class_facts(rows: ReportRows, rule: Suspicion | None) -> list[ClassFacts]:
    """Every class that the data set names, the most suspicious first; empty where nothing is labelled."""
    columns = class_columns(rows)
    means = "".join(f", avg({quoted(name)}) AS {quoted(f'mean:{name}')}" for name in columns)
    right = "status = 'ok' AND prediction = label"
    judged = f"{right} AND {quoted(rule.metric)} IS NOT NULL" if rule else "false"
    found = rows.ask(
        f"""
        SELECT label, count(*) AS images, count(*) FILTER (status <> 'ok') AS failed, count(prediction) AS answered,
            count(*) FILTER (prediction = label) AS "right", count(*) FILTER ({judged}) AS judged,
            count(*) FILTER ({judged} AND {rule.condition if rule else "false"}) AS suspicious {means}
        FROM rows WHERE main AND label IS NOT NULL GROUP BY label
        """
    )
    taken = {
        one["label"]: (one["prediction"], one["times"])
        for one in rows.ask(
            "SELECT label, prediction, count(*) AS times FROM rows WHERE main AND label <> prediction GROUP BY label, prediction "
            "QUALIFY row_number() OVER (PARTITION BY label ORDER BY times DESC, prediction) = 1"
        )
    }
    classes = [_facts(rows, one, columns, taken.get(one["label"])) for one in found]
    return sorted(classes, key=lambda one: (-one.least, _rank(one), one.index))


def most_suspicious(classes: list[ClassFacts]) -> ClassFacts | None:
    """The class to look at first; None where no class gives reason to."""
    return next((one for one in classes if one.of >= FEWEST and one.suspicious > 1 and (one.share or 0) > 0.1), None)


def _facts(rows: ReportRows, one: dict[str, Any], columns: list[str], taken: tuple[int, int] | None) -> ClassFacts:
    interval = wilson(one["suspicious"], one["judged"])
    return ClassFacts(
        index=one["label"], name=rows.class_name(one["label"]), images=one["images"], failed=one["failed"],
        answered=one["answered"], right=one["right"], accuracy=one["right"] / one["answered"] if one["answered"] else None,
        interval=wilson(one["right"], one["answered"]), means={name: one[f"mean:{name}"] for name in columns},
        suspicious=one["suspicious"], of=one["judged"], share=one["suspicious"] / one["judged"] if one["judged"] else None,
        least=interval[0] if interval and one["suspicious"] else 0.0,
        taken_for=rows.class_name(taken[0]) if taken else "", taken=taken[1] if taken else 0,
    )  # fmt: skip


def _rank(one: ClassFacts) -> float:
    """Among classes above suspicion those first that are looked at least."""
    for name, sign in (("ebpg", 1.0), ("border_share", -1.0)):
        value = one.means.get(name)
        if value is not None:
            return sign * value
    return one.accuracy if one.accuracy is not None else 0.0


def column_heads(columns: list[str]) -> list[tuple[str, str]]:
    """Column and name."""
    return [(name, name_of(name)) for name in columns]
