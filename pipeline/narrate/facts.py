"""What a text may say: numbers, names and conditions of one row or class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHARES = {
    "row": (
        "confidence", "label_confidence", "second_confidence", "place_share", "second_share", "on_object", "chance_on_object", "border", "drop", "top",
        "outside", "context_share", "part_share", "second_part_share",
    ),
    "class": ("accuracy", "on_object", "chance_on_object", "border", "off_object_share"),
}  # fmt: skip
"""Numbers in [0, 1] that a text about a row or a class may have; `has_NAME` holds where it is known."""
OTHERS = {
    "row": (
        "prediction", "explained", "label", "second", "context", "part", "second_part", "place", "second_place", "object", "object_place", "status", "error",
    ),
    "class": ("name", "taken_for", "images", "answered", "right", "failed", "taken", "off_object", "judged"),
}  # fmt: skip
"""Further placeholders."""
CONDITIONS = {
    "row": (
        "ok", "failed", "right", "wrong", "explains_another", "doubtful", "focused", "two_places", "spread", "off_object", "at_border", "uses_other_classes",
        "blocks_agree", "blocks_disagree", "is_object", "has_object_place", "on_part", "two_parts", "off_parts",
    ),
    "class": ("is_judged", "mostly_off_object", "is_taken_for_another", "has_failures"),
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """Everything that a template or a generated text about one row or class may use."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """In [0, 1], written in per cent."""
    counts: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Of classes, as the data set has them."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Keys of the language's `places`."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Taken over as they are, such as the status of a row without a map."""
    conditions: frozenset[str] = frozenset()
    """What is true; templates choose their sentences by these."""
