"""Every class: images, accuracy, localisation of the maps, and the class to review first.

A prediction is "correct, off-object" if its class is the label but less of the map's mass lies on the marked object than a random
map has there (the chance baseline: measured on the image, else the mean of its class, so that classes of small objects are not
accused of them), or, where no object is marked, if more of the mass lies in the border than an even map has there. Classes are ranked by
the lower end of the interval of that share, so that three images make no scandal. Where `curate --probe` looked for cues by intervention, its
verdict names the class to review first, as it does in the queue and in the terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..features.cue_table import class_cues, cues_of, verdict
from ..store.sql import quoted
from .plain_words import LOCALISATION
from .rows import CHANCE, ReportRows
from .scores import wilson

EVEN_BORDER = 0.36
"""Share of the image that lies in the frame of `border_share`, and so of an even map's mass."""
FALLBACK_CHANCE = 0.1
SHOWN = 500
FEWEST = 5
"""Correct predictions from which a class can be called suspicious."""


@dataclass(frozen=True)
class Suspicion:
    """The rule by which a correct prediction counts as off-object."""

    metric: str
    condition: str
    """SQL."""
    text: str
    """What it says of a prediction, after `predictions`."""
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
    """Correct predictions that can be judged."""
    share: float | None
    least: float
    """Lower end of the interval of `share`."""
    taken_for: str
    """The class that its wrong answers name most often; empty for none."""
    taken: int


def suspicion_rule(rows: ReportRows, scores: dict[str, dict[str, Any]]) -> Suspicion | None:
    """The rule for this store; None where it has neither a marked object nor `border_share`."""
    if "ebpg" in rows.metrics:
        of_random_map = scores.get("ebpg", {}).get("random")
        chance = FALLBACK_CHANCE if of_random_map is None else of_random_map
        beside = "a tenth" if of_random_map is None else f"a random map has there ({chance:.2f} on average)"
        text = f"with less of the map's mass on the object than {beside}"
        return Suspicion("ebpg", f"ebpg < coalesce({CHANCE}, {chance!r})", text, chance)
    if "border_share" in rows.metrics:
        text = f"with more of the map's mass in the border than the {EVEN_BORDER} of an even map"
        return Suspicion("border_share", f"border_share > {EVEN_BORDER!r}", text, EVEN_BORDER)
    return None


def class_columns(rows: ReportRows) -> list[str]:
    """The metrics that the table of classes shows."""
    names = [name for name in LOCALISATION if name in rows.metrics and name != "relevance_rank_accuracy"]
    return [*names, *(["border_share"] if "border_share" in rows.metrics else [])]


def class_facts(rows: ReportRows, rule: Suspicion | None) -> list[ClassFacts]:
    """Every class that the data set names, the most suspicious first; empty where nothing is labelled."""
    columns = class_columns(rows)
    means = "".join(f", avg({quoted(name)}) AS {quoted(f'mean:{name}')}" for name in columns)
    right = "status = 'ok' AND prediction = label"
    judged = f"{right} AND {quoted(rule.metric)} IS NOT NULL" if rule else "false"
    records = rows.ask(
        f"""
        SELECT label, count(*) AS images, count(*) FILTER (status <> 'ok') AS failed, count(prediction) AS answered,
            count(*) FILTER (prediction = label) AS "right", count(*) FILTER ({judged}) AS judged,
            count(*) FILTER ({judged} AND {rule.condition if rule else "false"}) AS suspicious {means}
        FROM rows WHERE main AND label IS NOT NULL GROUP BY label
        """
    )
    taken = {
        record["label"]: (record["prediction"], record["times"])
        for record in rows.ask(
            "SELECT label, prediction, count(*) AS times FROM rows WHERE main AND label <> prediction GROUP BY label, prediction "
            "QUALIFY row_number() OVER (PARTITION BY label ORDER BY times DESC, prediction) = 1"
        )
    }
    classes = [_facts(rows, record, columns, taken.get(record["label"])) for record in records]
    return sorted(classes, key=lambda facts: (-facts.least, _rank(facts), facts.index))


def most_suspicious(classes: list[ClassFacts]) -> ClassFacts | None:
    """The class to look at first; None where no class gives reason to."""
    return next(
        (facts for facts in classes if facts.of >= FEWEST and facts.suspicious > 1 and (facts.share or 0) > 0.1), None
    )


@dataclass(frozen=True)
class CueVerdict:
    """What `curate --probe` found by intervention."""

    text: str
    guilty: int | None
    """The class whose cue is strongest; None for nothing beyond chance."""


def cue_verdict(rows: ReportRows) -> CueVerdict | None:
    """The verdict of the queue; None where nobody looked, or nothing could be judged.

    Raises:
        StorageError: If the table of cues cannot be read.
    """
    table = cues_of(rows.atlas)
    if table is None or not len(table):
        return None
    cues = class_cues(table)
    return CueVerdict(verdict(table, rows.atlas.class_names), cues[0].label if cues and cues[0].guilty else None)


def _facts(rows: ReportRows, record: dict[str, Any], columns: list[str], taken: tuple[int, int] | None) -> ClassFacts:
    interval = wilson(record["suspicious"], record["judged"])
    return ClassFacts(
        index=record["label"], name=rows.class_name(record["label"]), images=record["images"], failed=record["failed"],
        answered=record["answered"], right=record["right"], accuracy=record["right"] / record["answered"] if record["answered"] else None,
        interval=wilson(record["right"], record["answered"]), means={name: record[f"mean:{name}"] for name in columns},
        suspicious=record["suspicious"], of=record["judged"], share=record["suspicious"] / record["judged"] if record["judged"] else None,
        least=interval[0] if interval and record["suspicious"] else 0.0,
        taken_for=rows.class_name(taken[0]) if taken else "", taken=taken[1] if taken else 0,
    )  # fmt: skip


def _rank(facts: ClassFacts) -> float:
    """Among classes without off-object predictions those first whose maps lie least on the object."""
    for name, sign in (("ebpg", 1.0), ("border_share", -1.0)):
        value = facts.means.get(name)
        if value is not None:
            return sign * value
    return facts.accuracy if facts.accuracy is not None else 0.0
