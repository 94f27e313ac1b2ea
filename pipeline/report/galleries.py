"""Which images are worth a look: the rules, as SQL over the rows of a report, and the rows that they choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..settings.imported_runs import IMPORTED
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


@dataclass(frozen=True)
class Gallery:
    """Some rows, and what they have in common."""

    key: str
    title: str
    text: str
    rows: list[dict[str, Any]]
    shown: tuple[str, ...] = ()
    """Metrics under each picture."""
    count: int = 0
    """Rows of the run that match the rule."""
    missing: str = ""
    """Why there are none, where a metric is lacking."""
    pairs: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """By id, the row of the same image for its label, where there is one."""


def leading_metric(rows: ReportRows) -> tuple[str, str] | None:
    """The metric that says which maps are best, and the order that puts the best first."""
    return next((metric for metric in LEADING if metric[0] in rows.metrics), None)


def choose_galleries(rows: ReportRows, rule: Suspicion | None, limit: int) -> list[Gallery]:
    """All galleries that this store allows, in the order in which they are shown."""
    galleries = [*_best_and_worst(rows, limit)]
    if rule is not None:
        galleries.insert(0, _correct_off_object(rows, rule, limit))
    galleries += [_border(rows, limit), _same_place(rows, limit), _sure_and_wrong(rows, limit)]
    return galleries


def chosen(rows: ReportRows, condition: str, order: str, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Rows that have a map and fit the condition, and how many fit; equal ones in an order that their ids draw."""
    where = f"main AND status = 'ok' AND ({condition})"
    records = rows.ask(f"SELECT * FROM rows WHERE {where} ORDER BY {order}, draw LIMIT {int(limit)}")
    return records, rows.single(f"SELECT count(*) AS n FROM rows WHERE {where}")["n"]


def _correct_off_object(rows: ReportRows, rule: Suspicion, limit: int) -> Gallery:
    records, count = chosen(rows, f"{RIGHT} AND {rule.condition}", "confidence DESC", limit)
    text = f"The prediction is correct, {rule.text}. The most confident predictions come first."
    return Gallery("wrong-reason", "Correct, off-object", text, records, (rule.metric,), count)


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
        Gallery("worst", "Worst maps", f"The {other} “{name_of(name)}” ({name}), correct and wrong predictions.", worst, (name,), count),
    ]  # fmt: skip


def _border(rows: ReportRows, limit: int) -> Gallery:
    title = "Most mass at the border"
    if "border_share" not in rows.metrics:
        why = "The store has no border_share; `heatlas evaluate OUT --metrics border_share` adds it."
        return Gallery("border", title, "", [], missing=why)
    records, count = chosen(rows, "border_share IS NOT NULL", "border_share DESC", limit)
    text = "The largest share of the map in the outer tenth of the image: watermarks, frames, stickers and cropped objects show up here."
    return Gallery("border", title, text, records, ("border_share",), count)


def _same_place(rows: ReportRows, limit: int) -> Gallery:
    title = "Maps for label and prediction overlap"
    wrong = "prediction <> label"
    if "label_overlap" in rows.metrics:
        records, count = chosen(rows, f"{wrong} AND label_overlap IS NOT NULL", "label_overlap DESC", limit)
        pairs = _label_rows(rows, records)
        text = (
            "The prediction is wrong, and its map overlaps with the map for the label (IoU of their strongest regions): the network "
            "sees the object and gives it another class. Often the label is wrong, or the classes are hard to tell apart."
        )
        if pairs:
            text += " Where there are three pictures, the last is the map for the label."
        return Gallery("same-place", title, text, records, ("label_overlap",), count, pairs=pairs)
    with_both = f"{wrong} AND id IN (SELECT id FROM rows WHERE status = 'ok' AND target = label AND NOT main)"
    candidates, count = chosen(rows, with_both, "confidence DESC", CANDIDATES)
    others = _label_rows(rows, candidates)
    scored = by_overlap(rows, candidates, others)[:limit]
    if not scored:
        why = (
            "This needs maps for the labels beside those for the predictions, and imported maps have one class an image."
            if IMPORTED in rows.atlas.run["settings"]
            else (
                "This needs the map for the label beside the map for the prediction: run with `--target both`, or add label_overlap with "
                "`heatlas evaluate`."
            )
        )
        return Gallery("same-place", title, "", [], missing=why)
    text = (
        f"The prediction is wrong. In the middle its map, on the right the map for the label; of the {len(candidates)} most confident such predictions "
        "those come first whose two maps overlap most (IoU of their strongest regions). Often the label is wrong, or the classes are hard to tell apart."
    )
    ids = {row["id"] for _, row in scored}
    pairs = {record: row for record, row in others.items() if record in ids}
    return Gallery("same-place", title, text, [row for _, row in scored], (), count, pairs=pairs)


def _label_rows(rows: ReportRows, records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if not records:
        return {}
    marks = ", ".join("?" for _ in records)
    others = rows.ask(
        f"SELECT * FROM rows WHERE NOT main AND status = 'ok' AND target = label AND id IN ({marks})", [record["id"] for record in records]
    )  # fmt: skip
    return {record["id"]: record for record in others}


def _sure_and_wrong(rows: ReportRows, limit: int) -> Gallery:
    records, count = chosen(rows, "prediction <> label AND prediction = target", "confidence DESC", limit)
    text = "Wrong predictions, the most confident first. Check the label, too."
    return Gallery("sure-wrong", "Confident and wrong", text, records, (), count)


@dataclass(frozen=True)
class Cause:
    """Rows that failed for one reason."""

    status: str
    error: str
    rows: int
    examples: list[dict[str, Any]]


def error_causes(rows: ReportRows, limit: int, examples: int = 3) -> tuple[list[Cause], int]:
    """The most frequent causes with the first of their rows, and how many causes there are. Numbers in texts count as equal."""
    asked = rows.atlas.query_rows(
        rf"""
        SELECT status, regexp_replace(replace(coalesce(error, ''), uri, '<uri>'), '0x[0-9a-fA-F]+|\d+', '#', 'g') AS cause,
            count(*) AS n, min(error) AS error, min(id, {int(examples)}) AS ids
        FROM atlas WHERE status <> 'ok' GROUP BY ALL ORDER BY n DESC, status, cause
        """
    )  # fmt: skip
    causes = []
    for status, _, count, error, ids in asked[:limit]:
        marks = ", ".join("?" for _ in ids)
        rows_of = rows.ask(f"SELECT * FROM rows WHERE main AND id IN ({marks}) ORDER BY id", ids)
        causes.append(Cause(status, error or "", count, rows_of))
    return causes, len(asked)
