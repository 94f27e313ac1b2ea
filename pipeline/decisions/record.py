"""Record decisions: check them against the store, append them, and summarise those that hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...errors import UsageError, did_you_mean
from ..text import counted
from .current import Decisions, cancelled_ids, resolve
from .decision import KINDS, UNDO, Decision, checked, decision_of
from .decision_log import append_decisions, read_decisions
from .rle import encode_mask

if TYPE_CHECKING:
    from ..store.reader import StoreReader

_NAMED = 5


def record_decisions(
    atlas: StoreReader,
    decisions: Iterable[Decision | Mapping[str, Any]],
    *,
    who: str | None = None,
    why: str | None = None,
    round: int | None = None,
) -> tuple[Decision, ...]:
    """Record decisions beside the store. Neither its rows nor the data set are changed.

    Args:
        atlas: The store.
        decisions: As `Decision`, or as mappings with its fields; at least `id` and `kind`. An `undo` without `supersedes` takes
            back the image's only current decision.
        who: Of decisions that name nobody; None for the user of this process.
        why: Of decisions that give no reason.
        round: Of decisions without one.

    Returns:
        What was written, with ids.

    Raises:
        UsageError: For ids or classes that the store does not have, or values that do not make sense; nothing is then written.
        StorageError: If they cannot be written.
    """
    wanted = [decision if isinstance(decision, Decision) else decision_of(decision) for decision in decisions]
    wanted = [
        checked(
            replace(
                decision,
                who=who if decision.who is None else decision.who,
                why=why if decision.why is None else decision.why,
                round=round if decision.round is None else decision.round,
            )
        )
        for decision in wanted
    ]
    _refuse_unknown_ids(atlas, wanted)
    _refuse_unknown_classes(atlas, wanted)
    _refuse_other_sizes(atlas, wanted)
    log = read_decisions(atlas.uri) if any(decision.kind == UNDO or decision.supersedes for decision in wanted) else []
    return append_decisions(atlas.uri, [_with_supersedes(decision, log) for decision in wanted])


def decision_mappings(
    decisions: str | Sequence[str] | Sequence[Mapping[str, Any]], values: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Decisions from ids and values that all of them share, or mappings as they are.

    Args:
        decisions: Ids, or mappings.
        values: Fields of `Decision`; `mask` may be a boolean array.

    Raises:
        UsageError: For ids without a kind, or mappings and a kind.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if isinstance(given.get("mask"), np.ndarray):
        given["mask"] = encode_mask(given["mask"].astype(bool))
    listed = [decisions] if isinstance(decisions, str) else list(decisions)
    rows = [row for row in listed if isinstance(row, Mapping)]
    if rows and (given or len(rows) < len(listed)):
        raise UsageError("give decisions as mappings with `id` and `kind`, or ids and `kind=`, not both")
    if not rows and "kind" not in given:
        raise UsageError(f"name what is decided with kind=, one of {', '.join(KINDS)}")
    return rows or [{"id": identity, **given} for identity in listed]


def current_decisions(out: str) -> Decisions:
    """What holds for a store: the one reader that every command uses.

    Raises:
        StorageError: If a file of decisions cannot be read.
    """
    return resolve(read_decisions(out))


def decisions_text(decisions: Decisions) -> str:
    """The current decisions as text: how many of each kind, and every conflict."""
    if not decisions.current:
        return "no decisions" + (f" ({decisions.undone} undone)" if decisions.undone else "")
    kinds = Counter(decision.kind for decision in decisions.current)
    named = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    undone = f"; {decisions.undone:,} undone" if decisions.undone else ""
    lines = [f"{counted(len(decisions.current), 'decision')}: {named}{undone}"]
    for winner, *others in decisions.conflicts:
        rivals = "; ".join(_said(decision) for decision in others)
        lines.append(f"conflict about {winner.id}{f' ({winner.object_id})' if winner.object_id else ''}: {_said(winner)} holds, "
                     f"being the latest; {rivals}")  # fmt: skip
    return "\n".join(lines)


def _said(decision: Decision) -> str:
    what = f"{decision.kind} {decision.label_name}" if decision.label_name else decision.kind
    return f"{decision.who} says {what} ({decision.decision_id})"


def _refuse_unknown_ids(atlas: StoreReader, decisions: Sequence[Decision]) -> None:
    ids = sorted({decision.id for decision in decisions})
    there = set(pa.concat_tables([pa.table({"id": pa.array([], pa.string())}), *atlas.batches(["id"], ids=ids)])["id"].to_pylist())  # fmt: skip
    unknown = [identity for identity in ids if identity not in there]
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise UsageError(f"{len(unknown)} of the ids are not in {atlas.uri}: {', '.join(map(repr, unknown[:_NAMED]))}{more}; "
                         f"ids look like {next(iter(atlas.batches(['id'])))['id'][0].as_py()}")  # fmt: skip


def _refuse_unknown_classes(atlas: StoreReader, decisions: Sequence[Decision]) -> None:
    names = atlas.class_names
    for decision in decisions:
        if decision.label_name is not None and names and decision.label_name not in names:
            raise UsageError(f"the decision about {decision.id!r} names the class {decision.label_name!r}"
                             f"{did_you_mean(decision.label_name, names)}; the classes are {', '.join(names[:20])}"
                             f"{' ...' if len(names) > 20 else ''}")  # fmt: skip
        if decision.target is not None and names and decision.target >= len(names):
            raise UsageError(f"the decision about {decision.id!r} has target {decision.target}; the classes are 0 to {len(names) - 1}")  # fmt: skip


def _refuse_other_sizes(atlas: StoreReader, decisions: Sequence[Decision]) -> None:
    """Refuse masks that are not of their image's size, where the store knows it."""
    masks = {(decision.id, *decision.mask["size"]) for decision in decisions if decision.mask is not None}
    if not masks or not {"height", "width"} <= set(atlas.schema.names):
        return
    known: dict[str, tuple[int, int]] = {}
    for batch in atlas.batches(["id", "height", "width"], ids=sorted({mask[0] for mask in masks})):
        for row in batch.to_pylist():
            if row["height"] and row["width"]:
                known[row["id"]] = row["height"], row["width"]
    for identity, *size in sorted(masks):
        own = known.get(identity)
        if own is None or tuple(size) == own:
            continue
        turned = " (width and height are exchanged: masks are of the upright image, its EXIF orientation applied)"
        raise UsageError(
            f"the mask of {identity!r} has {size[1]} x {size[0]} pixels, the upright image {own[1]} x {own[0]}"
            f"{turned if tuple(size[::-1]) == own else ''}; give it in the image's own pixels"
        )


def _with_supersedes(decision: Decision, log: Sequence[Decision]) -> Decision:
    """The decision with what it takes back or answers named, and known."""
    if decision.supersedes is not None:
        target = next((old for old in log if old.decision_id == decision.supersedes), None)
        if target is None or (target.id, target.object_id) != (decision.id, decision.object_id):
            raise UsageError(f"the decision about {decision.id!r} supersedes {decision.supersedes!r}, which is no decision about it")  # fmt: skip
        return decision
    if decision.kind != UNDO:
        return decision
    cancelled = cancelled_ids(log)
    own = [old for old in log if (old.id, old.object_id) == (decision.id, decision.object_id) and old.kind != UNDO]
    latest = {old.group: old for old in own if old.decision_id not in cancelled}
    if len(latest) == 1:
        return replace(decision, supersedes=next(iter(latest.values())).decision_id)
    if not latest:
        raise UsageError(f"there is no decision about {decision.id!r} to undo")
    raise UsageError(f"{decision.id!r} has several decisions; name in `supersedes` which to undo: "
                     + "; ".join(_said(old) for old in latest.values()))  # fmt: skip
