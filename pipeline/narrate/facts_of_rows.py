"""Gather the facts of one row: what the model says, where its evidence lies, and what speaks for doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ...statuses import OK
from ..report.rows import CONFIDENCE
from ..store.rows_to_table import area_weights
from ..text import class_name
from .facts import Facts

GRID = (
    "upper_left", "upper_centre", "upper_right", "centre_left", "centre", "centre_right", "lower_left", "lower_centre",
    "lower_right",
)  # fmt: skip
"""Names of the nine parts of an image, rows from the top."""
FOCUSED_SHARE = 0.2
"""Share of the map's mass from which its strongest ninth is a place; an even map has 0.11 in each."""
SECOND_SHARE = 0.15
DOUBT_SHARE = 0.1
"""Confidence of the next class from which it is told."""
BORDER_SHARE = 0.36
"""Of an even map in the outer tenth of the image."""
OUTSIDE_SHARE = 0.1
"""Share of the map's mass on other classes (`outside_context`) from which it is told."""
AGREEING, DISAGREEING = 0.6, 0.2
"""Rank correlation of the network's blocks (`layer_agreement`) from which they agree, and below which they do not."""
TOP_SHARE = 0.15
"""Pixels that `drop_pct` keeps."""


def row_facts(
    row: Mapping[str, Any],
    grid: Float[np.ndarray, "3 3"] | None,
    class_names: Sequence[str],
    chance: float | None,
    *,
    are_exclusive: bool = True,
    parts: Mapping[str, float] | None = None,
) -> Facts:
    """The facts of a row.

    Args:
        row: Stored columns: prediction, target, label, the confidence, status and error, metrics and `top_k` as far as there are any.
        grid: Mass of its map in each ninth of the image, summing to 1; None where there is no map.
        class_names: By index.
        chance: Mean share of a random map on the object, over the run's images with chance maps; None where it was not measured.
        are_exclusive: Whether confidences of classes exclude each other (softmax), so that a second class with much of it means doubt.
        parts: Share of the map on each labelled part of the image; None where none is labelled.
    """
    conditions = {"ok" if row["status"] == OK else "failed"}
    texts = {"status": str(row["status"]), "error": str(row.get("error") or "")}
    names = {key: class_name(class_names, row[column]) for key, column in (("prediction", "prediction"), ("explained", "target"), ("label", "label"))
             if row.get(column) is not None}  # fmt: skip
    names.setdefault("explained", names.get("prediction", ""))
    shares = {"confidence": row[CONFIDENCE], "label_confidence": row.get("label_confidence")}
    if row.get("target") not in (None, row["prediction"]):
        conditions.add("explains_another")
    if row["label"] is not None and row["prediction"] is not None:
        conditions.add("right" if row["label"] == row["prediction"] else "wrong")
    places: dict[str, str] = {}
    counts, told = _object_of_class(row)
    places |= told
    conditions |= {"is_object"} if counts else set()
    conditions |= {"has_object_place"} if told else set()
    if "ok" in conditions:
        if are_exclusive:
            conditions |= _second(row, class_names, shares, names)
        conditions |= _object(row, shares, chance, "right" in conditions)
        if grid is not None:
            conditions |= _places(grid, shares, places)
        conditions |= _surroundings(row, class_names, shares, names) | _parts(parts or {}, shares, names)
        if _is_number(row.get("drop_pct")):
            shares |= {"drop": row["drop_pct"] / 100, "top": TOP_SHARE}
    kept = {name: float(value) for name, value in shares.items() if _is_number(value)}
    return Facts(
        kept, counts, {name: text for name, text in names.items() if text}, places, texts,
        frozenset(conditions | {f"has_{name}" for name in kept}),
    )  # fmt: skip


def ninths(maps: Float[np.ndarray, "row height width"]) -> Float[np.ndarray, "row 3 3"]:
    """The mass of every map in each ninth of the image, summing to 1; zeros for a map without mass."""
    rows, columns = (
        area_weights(size, 3) * size / 3 if size >= 3 else np.ones((3, size)) / 3 for size in maps.shape[1:]
    )
    mass = rows @ maps.astype(np.float64) @ columns.T
    total = mass.sum(axis=(1, 2), keepdims=True)
    return mass / np.where(total > 0, total, 1)


def _second(
    row: Mapping[str, Any], class_names: Sequence[str], shares: dict[str, Any], names: dict[str, str]
) -> set[str]:
    """The class after the predicted one."""
    for entry in row.get("top_k") or ():
        if entry["index"] == row["prediction"] or not _is_number(entry["confidence"]):
            continue
        shares["second_confidence"] = entry["confidence"]
        names["second"] = entry["name"] or class_name(class_names, entry["index"])
        return {"doubtful"} if entry["confidence"] >= DOUBT_SHARE else set()
    return set()


def _object(row: Mapping[str, Any], shares: dict[str, Any], chance: float | None, is_right: bool) -> set[str]:
    if _is_number(row.get("ebpg")):
        shares |= {"on_object": row["ebpg"], "chance_on_object": chance}
        below = chance is not None and row["ebpg"] < chance
        return {"off_object"} if below and is_right else set()
    if _is_number(row.get("border_share")):
        shares["border"] = row["border_share"]
        return {"at_border"} if row["border_share"] > BORDER_SHARE else set()
    return set()


def _object_of_class(row: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, str]]:
    """Of a row about one object: its number, and in which ninth of the image its middle lies."""
    if not str(row.get("object_id") or "").isdecimal():
        return {}, {}
    counts, box = {"object": int(row["object_id"])}, row.get("box")
    if not box or not row.get("height") or not row.get("width"):
        return counts, {}
    across, down = (box["x0"] + box["x1"]) / 2 / row["width"], (box["y0"] + box["y1"]) / 2 / row["height"]
    cells = [min(2, max(0, int(3 * share))) for share in (down, across)]
    return counts, {"object_place": GRID[3 * cells[0] + cells[1]]}


def _parts(parts: Mapping[str, float], shares: dict[str, Any], names: dict[str, str]) -> set[str]:
    """On which labelled parts the map lies."""
    order = sorted(parts, key=lambda name: (-parts[name], name))
    if not order:
        return set()
    names["part"], shares["part_share"] = order[0], parts[order[0]]
    if parts[order[0]] < FOCUSED_SHARE:
        return {"off_parts"}
    if len(order) > 1 and parts[order[1]] >= SECOND_SHARE:
        names["second_part"], shares["second_part_share"] = order[1], parts[order[1]]
        return {"on_part", "two_parts"}
    return {"on_part"}


def _surroundings(
    row: Mapping[str, Any], class_names: Sequence[str], shares: dict[str, Any], names: dict[str, str]
) -> set[str]:
    """What else is used than the class itself, and whether the network's blocks point to the same places."""
    conditions = set[str]()
    if _is_number(row.get("outside_context")):
        shares["outside"] = row["outside_context"]
        conditions |= {"uses_other_classes"} if row["outside_context"] >= OUTSIDE_SHARE else set()
        if _is_number(row.get("context_class")) and _is_number(row.get("context_share")):
            shares["context_share"] = row["context_share"]
            names["context"] = class_name(class_names, int(row["context_class"]))
    if _is_number(row.get("layer_agreement")):
        agreement = row["layer_agreement"]
        conditions |= (
            {"blocks_agree"} if agreement >= AGREEING else {"blocks_disagree"} if agreement < DISAGREEING else set()
        )
    return conditions


def _places(grid: np.ndarray, shares: dict[str, Any], places: dict[str, str]) -> set[str]:
    order = np.argsort(-grid.ravel(), kind="stable")
    first, second = float(grid.ravel()[order[0]]), float(grid.ravel()[order[1]])
    if first <= 0:
        return set()
    shares |= {"place_share": first, "second_share": second}
    places |= {"place": GRID[order[0]], "second_place": GRID[order[1]]}
    if first < FOCUSED_SHARE:
        return {"spread"}
    return {"focused", "two_places"} if second >= SECOND_SHARE else {"focused"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
