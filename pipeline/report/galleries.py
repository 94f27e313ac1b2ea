"""Which images are worth a look: the rules, as SQL over the rows of a report, and the rows that they choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..store.sql import quoted
from .classes import Suspicion
from .plain_words import name_of
from .rows import ReportRows
from .same_place import CANDIDATES, by_overlap

LEADING = (
    ("ebpg", "DESC"), ("bbox", "DESC"), ("miou", "DESC"), ("pointing_hit", "DESC"), ("insertion_auc", "DESC"), ("road", "DESC"),
    ("adcc", "DESC"), ("average_gain_pct", "DESC"), ("drop_pct", "ASC"), ("deletion_auc", "ASC"),
)  # fmt: skip
"""By which metric maps are called best and worst, and the order that puts the best first: the first that the store has."""
RIGHT = "prediction = label"
SURE = 0.5


@dataclass(frozen=True)
class Gallery:
    """Some rows, and what they have in common."""

    key: str
    title: str
    text: str
    rows: list[dict[str, Any]]
    shown: tuple[str, ...] = ()
    """Metrics under each picture."""
    found: int = 0
    """Rows of the run that the rule fits."""
    missing: str = ""
    """Why there are none, where a metric is lacking."""
    pairs: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """By id, the row of the same image for its label, where there is one."""


def leading_metric(rows: ReportRows) -> tuple[str, str] | None:
    """The metric that says which maps are best, and the order that puts the best first."""
    return next((one for one in LEADING if one[0] in rows.metrics), None)


def choose_galleries(rows: ReportRows, rule: Suspicion | None, limit: int) -> list[Gallery]:
    """All galleries that this store allows, in the order in which they are shown."""
    found = [*_best_and_worst(rows, limit)]
    if rule is not None:
        found.insert(0, _right_for_the_wrong_reason(rows, rule, limit))
    found += [_border(rows, limit), _same_place(rows, limit), _sure_and_wrong(rows, limit)]
    return found


def chosen(rows: ReportRows, condition: str, order: str, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Rows that have a map and fit the condition, and how many fit; equal ones in an order that their ids draw."""
    where = f"main AND status = 'ok' AND ({condition})"
    found = rows.ask(f"SELECT * FROM rows WHERE {where} ORDER BY {order}, draw LIMIT {int(limit)}")
    return found, rows.one(f"SELECT count(*) AS n FROM rows WHERE {where}")["n"]


def _right_for_the_wrong_reason(rows: ReportRows, rule: Suspicion, limit: int) -> Gallery:
    found, count = chosen(rows, f"{RIGHT} AND {rule.condition}", "score DESC", limit)
    text = f"The answer is right, and given {rule.text}. The surest answers come first."
    return Gallery("wrong-reason", "Right, but not for the object", text, found, (rule.metric,), count)


def _best_and_worst(rows: ReportRows, limit: int) -> list[Gallery]:
    leading = leading_metric(rows)
    if leading is None:
        text = "Best and worst are told by a metric with a better end, and this store has none; `heatlas evaluate` adds some."
        return [Gallery("best", "Best and worst", "", [], missing=text)]
    name, order = leading
    column, opposite = quoted(name), "ASC" if order == "DESC" else "DESC"
    end, other = ("highest", "lowest") if order == "DESC" else ("lowest", "highest")
    best, count = chosen(rows, f"{column} IS NOT NULL", f"{column} {order}", limit)
    worst, _ = chosen(rows, f"{column} IS NOT NULL", f"{column} {opposite}", limit)
    return [
        Gallery("best", "Best maps", f"The {end} “{name_of(name)}” ({name}).", best, (name,), count),
        Gallery("worst", "Worst maps", f"The {other} “{name_of(name)}” ({name}), right answers and wrong ones.", worst, (name,), count),
    ]  # fmt: skip


def _border(rows: ReportRows, limit: int) -> Gallery:
    title = "Most bound to the border"
    if "border_share" not in rows.metrics:
        why = "The store has no border_share; `heatlas evaluate OUT --metrics border_share` adds it."
        return Gallery("border", title, "", [], missing=why)
    found, count = chosen(rows, "border_share IS NOT NULL", "border_share DESC", limit)
    text = "The largest share of the map in the outer tenth of the image: watermarks, frames, stickers and cropped objects show up here."
    return Gallery("border", title, text, found, ("border_share",), count)


def _same_place(rows: ReportRows, limit: int) -> Gallery:
    title = "Label and prediction look at the same place"
    wrong = "prediction <> label"
    if "label_overlap" in rows.metrics:
        found, count = chosen(rows, f"{wrong} AND label_overlap IS NOT NULL", "label_overlap DESC", limit)
        pairs = _label_rows(rows, found)
        text = (
            "The prediction is wrong, and the evidence for it lies where the evidence for the label lies: the network sees the object "
            "and names it otherwise. Often the label is wrong, or the classes are hard to tell apart."
        )
        if pairs:
            text += " Where there are three pictures, the last is the map for the label."
        return Gallery("same-place", title, text, found, ("label_overlap",), count, pairs=pairs)
    with_both = f"{wrong} AND id IN (SELECT id FROM rows WHERE status = 'ok' AND target = label AND NOT main)"
    candidates, count = chosen(rows, with_both, "score DESC", CANDIDATES)
    others = _label_rows(rows, candidates)
    scored = by_overlap(rows, candidates, others)[:limit]
    if not scored:
        why = (
            "This needs the map for the label beside the map for the prediction: run with `--target both`, or add label_overlap with "
            "`heatlas evaluate`."
        )
        return Gallery("same-place", title, "", [], missing=why)
    text = (
        f"The prediction is wrong. In the middle its map, on the right the map for the label; of the {len(candidates)} surest such answers "
        "those come first whose two maps overlap most. Often the label is wrong, or the classes are hard to tell apart."
    )
    ids = {row["id"] for _, row in scored}
    pairs = {one: row for one, row in others.items() if one in ids}
    return Gallery("same-place", title, text, [row for _, row in scored], (), count, pairs=pairs)


def _label_rows(rows: ReportRows, found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if not found:
        return {}
    marks = ", ".join("?" for _ in found)
    others = rows.ask(
        f"SELECT * FROM rows WHERE NOT main AND status = 'ok' AND target = label AND id IN ({marks})", [one["id"] for one in found]
    )  # fmt: skip
    return {one["id"]: one for one in others}


def _sure_and_wrong(rows: ReportRows, limit: int) -> Gallery:
    found, count = chosen(rows, "prediction <> label AND prediction = target", "score DESC", limit)
    text = "Wrong answers with the highest probability first. Look at the label, too."
    return Gallery("sure-wrong", "Sure and wrong", text, found, (), count)


@dataclass(frozen=True)
class Cause:
    """Rows that failed for one reason."""

    status: str
    error: str
    rows: int
    examples: list[dict[str, Any]]


def error_causes(rows: ReportRows, limit: int, examples: int = 3) -> tuple[list[Cause], int]:
    """The most frequent causes with the first of their rows, and how many causes there are. Numbers in texts count as equal."""
    asked = rows.atlas.sql(
        rf"""
        SELECT status, regexp_replace(replace(coalesce(error, ''), uri, '<uri>'), '0x[0-9a-fA-F]+|\d+', '#', 'g') AS cause,
            count(*) AS n, min(error) AS error, min(id, {int(examples)}) AS ids
        FROM atlas WHERE status <> 'ok' GROUP BY ALL ORDER BY n DESC, status, cause
        """
    ).fetchall()  # fmt: skip
    found = []
    for status, _, count, error, ids in asked[:limit]:
        marks = ", ".join("?" for _ in ids)
        rows_of = rows.ask(f"SELECT * FROM rows WHERE main AND id IN ({marks}) ORDER BY id", ids)
        found.append(Cause(status, error or "", count, rows_of))
    return found, len(asked)
