"""What a text may say: numbers, names and conditions of one row or class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
