"""Define one decision: its fields, which kinds there are, and what each kind needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ...errors import UsageError, did_you_mean
from .rle import Rle, checked_rle

GROUP_OF = {"ok": "label", "relabel": "label", "drop": "label", "unsure": "label", "shortcut": "shortcut", "core": "core"}  # fmt: skip
"""Kind-group by kind: of one (id, object_id, kind-group) the latest decision wins. `undo` belongs to none."""
UNDO = "undo"
KINDS: tuple[str, ...] = (*GROUP_OF, UNDO)
KIND_TEXTS = {
    "ok": "label and image are right",
    "relabel": "the label is `label_name`",
    "drop": "leave the image out of the data set",
    "unsure": "cannot be decided by looking",
    "shortcut": "the model uses something that does not belong to the class (`mask`: where)",
    "core": "what belongs to the class (`mask`: where)",
    "undo": "take back the decision `supersedes`",
}
SOURCES = ("view", "annotate", "python", "csv", "spread")
SCHEMA = pa.schema(
    [
        ("decision_id", pa.string()), ("id", pa.string()), ("object_id", pa.string()), ("target", pa.int32()), ("kind", pa.string()),
        ("label_name", pa.string()), ("mask", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),
        ("who", pa.string()), ("when", pa.timestamp("us", tz="UTC")), ("why", pa.string()), ("round", pa.int32()),
        ("source", pa.string()), ("supersedes", pa.string()),
    ]
)  # fmt: skip
"""Columns of `STORE/decisions/*.parquet`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided about an image, or about one object in it."""

    id: str
    kind: str
    """One of `KINDS`."""
    object_id: str | None = None
    target: int | None = None
    """Class index whose explanation was looked at."""
    label_name: str | None = None
    """The right class, for `relabel`."""
    mask: Rle | None = None
    """In pixels of the source image after EXIF orientation; for `shortcut` and `core`."""
    who: str | None = None
    when: datetime | None = None
    """With a time zone."""
    why: str | None = None
    round: int | None = None
    source: str = "python"
    """One of `SOURCES`."""
    supersedes: str | None = None
    """Id of the decision that this one answers, or takes back."""
    decision_id: str | None = None
    """Set when it is written."""

    @property
    def group(self) -> str:
        """Kind-group; empty for `undo`."""
        return GROUP_OF.get(self.kind, "")

    @property
    def content(self) -> tuple[Any, ...]:
        """What was decided, without who and when."""
        return self.kind, self.label_name, str(self.mask) if self.mask else None

    def record(self) -> dict[str, Any]:
        """By the names of `SCHEMA`."""
        return asdict(self)


FIELDS = tuple(field.name for field in fields(Decision))


def decision_of(record: Mapping[str, Any]) -> Decision:
    """A decision from plain values by the names of `SCHEMA`; checked.

    Raises:
        UsageError: Naming the value that is wrong and what would be right.
    """
    if unknown := [name for name in record if name not in FIELDS]:
        raise UsageError(f"a decision has no field {unknown[0]!r}{did_you_mean(unknown[0], FIELDS)}; it has {', '.join(FIELDS)}")  # fmt: skip
    values = {name: value for name, value in record.items() if value is not None and value != ""}
    if missing := [name for name in ("id", "kind") if name not in values]:
        raise UsageError(f"a decision needs a value for {missing[0]!r}: {dict(record)}")
    return checked(Decision(**values))


def checked(decision: Decision) -> Decision:
    """The decision with its values normalised.

    Raises:
        UsageError: As `decision_of`.
    """
    for name in ("id", "kind", "object_id", "label_name", "who", "why", "source", "supersedes", "decision_id"):
        value = getattr(decision, name)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} of the decision about {decision.id!r} must be text, got {value!r}")
    about = f"the decision about {decision.id!r}"
    if decision.kind not in KINDS:
        raise UsageError(
            f"{about} has the kind {decision.kind!r}{did_you_mean(decision.kind, KINDS)}; choose {', '.join(KINDS)}"
        )
    if decision.source not in SOURCES:
        raise UsageError(f"{about} has the source {decision.source!r}; choose {', '.join(SOURCES)}")
    if (decision.kind == "relabel") != (decision.label_name is not None):
        if decision.kind == "relabel":
            raise UsageError(
                f"{about} is to relabel it and does not say to which class: give --label, or a column or field label_name"
            )
        raise UsageError(
            f"{about} is {decision.kind} and names the class {decision.label_name!r}; only relabel has a class (--label, label_name)"
        )
    if decision.mask is not None and decision.kind not in ("shortcut", "core"):
        raise UsageError(f"{about} has kind {decision.kind!r} and a mask; only shortcut and core have one")
    for name in ("target", "round"):
        value = getattr(decision, name)
        if value is not None and (type(value) is not int or not 0 <= value < 2**31):
            raise UsageError(f"{name} of {about} must be a whole number from 0 on, got {value!r}")
    mask = None if decision.mask is None else checked_rle(decision.mask)
    return replace(decision, mask=mask, when=_utc(decision.when, about))


def _utc(when: Any, about: str) -> datetime | None:
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise UsageError(f"when of {about} must be a time as 2026-01-31T12:00:00Z, got {when!r}") from None
    if when is not None and (not isinstance(when, datetime) or when.tzinfo is None):
        raise UsageError(f"when of {about} must be a time with its time zone, as 2026-01-31T12:00:00Z, got {when!r}")
    return None if when is None else when.astimezone(UTC)
