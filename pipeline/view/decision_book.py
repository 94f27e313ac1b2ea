"""Record decisions from the page, keep those that hold in the table `decided`, and tell every open page what has changed."""

from __future__ import annotations

import base64
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UsageError, did_you_mean
from ..decisions.current import cancelled_ids, resolve
from ..decisions.decision import GROUP_OF, UNDO, Decision, checked
from ..decisions.decision_log import FOLDER, append_decisions, read_decisions, user_name
from ..decisions.rle import Rle, encode_mask
from ..storage.location import child, locate, names_in
from ..store.reader import StoreReader
from .view_rows import ViewRows

MOST_AT_ONCE = 100_000
"""Images of one bulk decision."""
LARGEST_MASK_PIXELS = 4_000_000
"""Pixels of a painted mask as it is sent."""


@dataclass(frozen=True)
class Written:
    """One act of deciding, which can be undone as a whole."""

    batch: str
    count: int
    version: int


class DecisionBook:
    """The decisions of one store, safe to use from several threads.

    Args:
        atlas: The store beside which they lie.
        table: Whose `decided` is kept up to date.
        who: Name of decisions made here; None for the user of this process.
    """

    def __init__(self, atlas: StoreReader, table: ViewRows, *, who: str | None = None):
        self._atlas, self._table, self._who = atlas, table, who
        self._lock = threading.RLock()
        self._files: set[str] = set()
        self._by_id: dict[str, list[Decision]] = defaultdict(list)
        self._changes: list[str] = []
        """Ids in the order in which their decisions changed; the version is the length."""
        self._read_all(self._names())

    @property
    def version(self) -> int:
        return len(self._changes)

    def decide(
        self,
        rows: Sequence[Mapping[str, Any]],
        kind: str,
        *,
        label_name: str | None = None,
        why: str | None = None,
        mask: Rle | None = None,
    ) -> Written:
        """Record one decision about some images.

        Args:
            rows: `id` and `target` of each.
            kind: One of `GROUP_OF`.
            label_name: The right class, for `relabel`.
            why: A reason.
            mask: Region in source pixels, for one image.

        Raises:
            UsageError: For an unknown kind or class, no image, or too many.
            StorageError: If they cannot be written; nothing is then recorded.
        """
        if kind not in GROUP_OF:
            raise UsageError(f"unknown decision {kind!r}{did_you_mean(kind, GROUP_OF)}; choose {', '.join(GROUP_OF)}")
        if not 1 <= len(rows) <= MOST_AT_ONCE:
            raise UsageError(f"a decision is about 1 to {MOST_AT_ONCE:,} images, got {len(rows):,}")
        names = self._atlas.class_names
        if label_name is not None and names and label_name not in names:
            raise UsageError(f"unknown class {label_name!r}{did_you_mean(label_name, names)}")
        wanted = {
            row["id"]: checked(
                Decision(
                    row["id"], kind, target=row.get("target"), label_name=label_name, mask=mask, why=why, who=self._who, source="view"
                )
            )
            for row in rows
        }  # fmt: skip
        return self._append(list(wanted.values()))

    def undo(self, batch: str) -> Written:
        """Take back every decision of one act; what was decided before holds again.

        Raises:
            UsageError: If there is no such act, or it was taken back already.
        """
        with self._lock:
            self.refresh()
            log = [decision for decisions in self._by_id.values() for decision in decisions]
            place = child(child(self._atlas.uri, FOLDER), f"{batch}.parquet")
            if f"{batch}.parquet" not in self._files:
                raise UsageError(f"there is no act {batch!r} to undo in {place}")
            first = next(decision for decision in log if decision.decision_id == batch)
            same = [decision for decision in log if (decision.when, decision.who, decision.kind, decision.label_name)
                    == (first.when, first.who, first.kind, first.label_name)]  # fmt: skip
            if first.kind == UNDO or any(decision.supersedes == batch and decision.kind == UNDO for decision in log):
                raise UsageError("this was undone already")
            undos = [
                Decision(decision.id, UNDO, object_id=decision.object_id, who=self._who, source="view", supersedes=decision.decision_id)
                for decision in same
            ]  # fmt: skip
            return self._append(undos)

    def latest_act(self) -> dict[str, Any] | None:
        """The latest act that was made in a page under this name and still holds, whichever page or server it was; None without one."""
        who = self._who or user_name()
        with self._lock:
            self.refresh()
            log = [decision for decisions in self._by_id.values() for decision in decisions]
        cancelled = cancelled_ids(log)
        own = [decision for decision in log if decision.source == "view" and decision.who == who
               and decision.kind != UNDO and decision.decision_id not in cancelled and decision.when]  # fmt: skip
        if not own:
            return None
        last = max(own, key=lambda decision: (decision.when, decision.decision_id))
        same = [decision for decision in own if (decision.when, decision.kind, decision.label_name)
                == (last.when, last.kind, last.label_name)]  # fmt: skip
        first = min(same, key=lambda decision: decision.decision_id or "")
        rows = self._table.ask("SELECT min(n) AS n FROM items WHERE id = ? AND main", [first.id])
        return {
            "batch": first.decision_id, "kind": first.kind, "label": first.label_name, "count": len(same), "who": who,
            "when": first.when.isoformat() if first.when else "", "id": first.id, "row": rows[0]["n"],
        }  # fmt: skip

    def changes(self, since: int) -> dict[str, Any]:
        """Decisions of the images that changed after a version, and the version now."""
        with self._lock:
            self.refresh()
            ids = list(dict.fromkeys(self._changes[max(0, since) :]))
            changes: dict[str, dict[str, Any]] = {
                identity: {"id": identity, "decision": None, "new_label": None} for identity in ids
            }
            for identity in ids:
                for decision in resolve(self._by_id[identity]).current:
                    record = changes[identity]
                    record["decision"] = (
                        f"{record['decision']} {decision.kind}" if record["decision"] else decision.kind
                    )
                    record["new_label"] = decision.label_name or record["new_label"]
            return {"version": self.version, "changes": list(changes.values())}

    def refresh(self) -> None:
        """Read again if another process has decided something."""
        with self._lock:
            names = self._names()
            if names - self._files:
                self._read_all(names)

    def _names(self) -> set[str]:
        fs, path = locate(child(self._atlas.uri, FOLDER))
        return {name for name in names_in(fs, path) if name.endswith(".parquet") and not name.startswith(".")}

    def _read_all(self, names: set[str]) -> None:
        before = {identity: len(decisions) for identity, decisions in self._by_id.items()}
        self._by_id = defaultdict(list)
        for decision in read_decisions(self._atlas.uri):
            self._by_id[decision.id].append(decision)
        self._files = names
        self._changes += [
            identity for identity, decisions in self._by_id.items() if len(decisions) != before.get(identity)
        ]
        self._publish(None)

    def _append(self, decisions: list[Decision]) -> Written:
        with self._lock:
            written = append_decisions(self._atlas.uri, decisions)
            batch = written[0].decision_id or ""
            self._files.add(f"{batch}.parquet")
            for decision in written:
                self._by_id[decision.id].append(decision)
            ids = [decision.id for decision in written]
            self._changes += ids
            self._publish(ids)
            return Written(batch, len(written), self.version)

    def _publish(self, ids: Sequence[str] | None) -> None:
        """Write what holds into `decided`."""
        log = [decision for identity in (self._by_id if ids is None else ids) for decision in self._by_id[identity]]
        records = [
            (decision.id, decision.kind, decision.label_name, decision.who)
            for decision in resolve(log).current
            if decision.object_id is None
        ]
        self._table.set_decided(records, ids)


def painted_mask(sent: Any, size: tuple[int, int]) -> Rle:
    """A mask that was painted on a reduced image, in pixels of the source image.

    Args:
        sent: `width`, `height`, and `bits`: base64 of one bit a pixel, rows from the top, the first pixel in the highest bit.
        size: Width and height of the source image.

    Raises:
        UsageError: If the bits do not fill the size, or nothing is painted.
    """
    if not isinstance(sent, Mapping):
        raise UsageError("mask must be an object with width, height and bits")
    width, height = sent.get("width"), sent.get("height")
    if (
        type(width) is not int
        or type(height) is not int
        or width < 1
        or height < 1
        or width * height > LARGEST_MASK_PIXELS
    ):
        raise UsageError(f"a mask has 1 to {LARGEST_MASK_PIXELS:,} pixels, got {width!r} x {height!r}")
    try:
        data = base64.b64decode(str(sent.get("bits")), validate=True)
    except ValueError:
        raise UsageError("bits must be base64") from None
    if len(data) != (width * height + 7) // 8:
        raise UsageError(
            f"a mask of {width} x {height} pixels needs {(width * height + 7) // 8} bytes, got {len(data)}"
        )
    mask = np.unpackbits(np.frombuffer(data, np.uint8), count=width * height).reshape(height, width).astype(bool)
    if not mask.any():
        raise UsageError("nothing is painted; paint the region, or decide without a mask")
    if (width, height) != size:
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return encode_mask(mask)
