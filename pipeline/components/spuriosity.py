"""Rank the images of a class by how much of its logit the components give that people called a shortcut.

Source: Moayeri et al., Spuriosity Rankings, NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..text import shown

SHOWN = 5
"""Images at either end."""


@dataclass(frozen=True)
class SpuriosityRanking:
    """Of one class."""

    index: int
    """The class."""
    class_name: str
    names: tuple[str, ...]
    """Of the components called a shortcut."""
    images: int
    correct_most: float
    """Share of the third with most spuriosity that is predicted correctly."""
    correct_least: float
    """Of the third with least."""
    most: tuple[str, ...]
    """Ids, most spuriosity first."""
    least: tuple[str, ...]
    """Ids, least spuriosity first."""

    @property
    def gap(self) -> float:
        """How much more of the upper third is correct: what the class owes to its shortcuts."""
        return self.correct_most - self.correct_least

    @property
    def text(self) -> str:
        """A line for people."""
        return (
            f"{self.class_name}, spuriosity ({', '.join(self.names)}): {100 * self.correct_most:.0f} % correct in the third with most, "
            f"{100 * self.correct_least:.0f} % in the third with least, a gap of {100 * self.gap:.0f} points; least have {', '.join(map(shown, self.least[:3]))}"
        )

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "class": self.index, "class_name": self.class_name, "names": list(self.names), "images": self.images, "correct_most": self.correct_most,
            "correct_least": self.correct_least, "gap": self.gap, "most": list(self.most), "least": list(self.least),
        }  # fmt: skip


def ranks_of(spuriosity: Float[np.ndarray, " image"]) -> Int[np.ndarray, " image"]:
    """Rank of every image, 1 for the one with most; the earlier image first where two have the same."""
    ranks = np.empty(len(spuriosity), np.int64)
    ranks[np.argsort(-spuriosity, kind="stable")] = np.arange(1, len(spuriosity) + 1)
    return ranks


def rank_class(
    index: int,
    name: str,
    names: Sequence[str],
    ids: Sequence[str],
    spuriosity: Float[np.ndarray, " image"],
    right: Bool[np.ndarray, " image"],
) -> SpuriosityRanking:
    """The ranking of one class.

    Args:
        index: The class.
        name: Of the class.
        names: Of the components whose contributions `spuriosity` sums.
        ids: Of its images, at least 3.
        spuriosity: Of the same images.
        right: Whether each is predicted correctly.
    """
    order: list[int] = np.argsort(-spuriosity, kind="stable").tolist()
    upper, _, lower = np.array_split(np.array(order), 3)
    return SpuriosityRanking(
        index, name, tuple(names), len(ids), float(right[upper].mean()), float(right[lower].mean()),
        tuple(ids[place] for place in order[:SHOWN]), tuple(ids[place] for place in order[::-1][:SHOWN]),
    )  # fmt: skip
