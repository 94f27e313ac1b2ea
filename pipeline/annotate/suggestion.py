"""Define what is sent to an annotation tool, and what comes back from one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..decisions.rle import Mask, Rle, decode_mask, encode_mask

KINDS = {
    "shortcut": "the map lies here, outside of what is marked as the object",
    "missing": "the model is sure and looks here, but nothing is marked in the image",
    "label": "the label is probably wrong",
}
RELABEL = "relabel:"
DECISIONS = ("ok", "drop", "unsure", "shortcut", "core")
"""What an annotation may be called, besides `relabel:CLASS`; `core` marks what belongs to the class."""
PROPOSED = {"shortcut": "shortcut", "missing": "core"}
"""Decision that a suggestion proposes, by kind; `label` proposes `relabel:CLASS`."""


@dataclass(frozen=True, eq=False)
class Suggestion:
    """Something that a person should look at in one image."""

    suggestion_id: str
    """The same for the same row, kind and map."""
    id: str
    """Of the image in the store."""
    uri: str
    kind: str
    """One of `KINDS`."""
    height: int
    """Pixels of the upright image."""
    width: int
    target: int
    priority: float
    """In [0, 1]."""
    reason: str
    label: str | None = None
    """Name of the image's label."""
    mask: Rle | None = None
    """In pixels of the upright image; none for `label`."""
    suggested: str | None = None
    """Name of the class that is proposed, for `label`."""

    @property
    def proposal(self) -> str:
        """What an annotation of it is called."""
        return f"{RELABEL}{self.suggested}" if self.kind == "label" else PROPOSED[self.kind]

    def pixels(self) -> Mask | None:
        """The mask `(height, width)`."""
        return None if self.mask is None else decode_mask(self.mask)

    def box(self) -> list[float]:
        """`[x, y, width, height]` around the mask in pixels; the whole image without one."""
        pixels = self.pixels()
        if pixels is None or not pixels.any():
            return [0.0, 0.0, float(self.width), float(self.height)]
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        return [float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)]


@dataclass(frozen=True, eq=False)
class Answer:
    """One annotation as it came back."""

    id: str
    """Of the image in the store."""
    called: str
    """A name of `DECISIONS`, or `relabel:CLASS`."""
    mask: Rle | None = None
    who: str | None = None
    when: str | None = None
    """ISO 8601 with a time zone."""
    suggestion_id: str | None = None
    by_person: bool = False
    """Whether the tool says that a person made or confirmed it; else only a difference to the suggestion does."""


def suggestion_id(identity: str, target: int, kind: str, evidence: bytes) -> str:
    """A stable id of 20 hexadecimal digits.

    Args:
        identity: Id of the image.
        target: Class index that was explained.
        kind: Of the suggestion.
        evidence: Bytes of the map, or of the proposed class.
    """
    digest = hashlib.sha256()
    for part in (identity.encode(), str(target).encode(), kind.encode(), evidence):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:20]


def united(masks: Iterable[Rle]) -> Rle | None:
    """The union of masks of one size; None for none."""
    whole: Mask | None = None
    for mask in masks:
        pixels = decode_mask(mask)
        whole = pixels if whole is None else whole | pixels
    return None if whole is None else encode_mask(whole)
