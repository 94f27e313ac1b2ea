"""Compare the predictions of two networks: where they differ, and which is correct more often."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pairs import Pairs

SHOWN = 20


@dataclass(frozen=True)
class Predictions:
    """Counts over images, each once."""

    images: int
    """For which both runs have a prediction."""
    changed: int
    changes: list[dict[str, Any]]
    """`first`, `second` (class indices), `images`; the most frequent first, 20 at most."""
    kinds: int
    """How many different changes there are."""
    labelled: int
    """Images with a label, of those."""
    right: tuple[int, int]
    only: tuple[int, int]
    """Images that only the first, only the second gets right."""
    p: float | None
    """McNemar's exact test of equal accuracy, two-sided; None without labels."""

    @property
    def accuracy(self) -> tuple[float | None, float | None]:
        return tuple(count / self.labelled if self.labelled else None for count in self.right)  # pyright: ignore[reportReturnType]


def compare_predictions(pairs: Pairs) -> Predictions:
    """Count the answers of all images that are paired, whether or not they have a map."""
    table = pairs.table
    first, second = (table[f"{which}_prediction"].to_numpy().astype(np.float64) for which in ("first", "second"))
    labels = table["label"].to_numpy().astype(np.float64)
    once = ~np.isnan(first) & ~np.isnan(second) & first_of_image(pairs)
    first, second, labels = first[once], second[once], labels[once]
    changed = first != second
    kinds = Counter(zip(first[changed].astype(int).tolist(), second[changed].astype(int).tolist(), strict=True))
    known = ~np.isnan(labels)
    right = (known & (first == labels)), (known & (second == labels))
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return Predictions(
        images=len(first), changed=int(changed.sum()), kinds=len(kinds),
        changes=[{"first": before, "second": after, "images": count}
                 for (before, after), count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]],
        labelled=int(known.sum()), right=(int(right[0].sum()), int(right[1].sum())), only=only,
        p=mcnemar(*only) if known.any() else None,
    )  # fmt: skip


def first_of_image(pairs: Pairs) -> np.ndarray:
    """`(pair,)` True for one pair of every image."""
    ids = np.array(pairs.table["id"].to_pylist(), dtype=object)
    seen: set[str] = set()
    return np.fromiter((not (identity in seen or seen.add(identity)) for identity in ids), bool, len(ids))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that both are equally often the only one to be right."""
    from scipy import stats

    total = only_first + only_second
    return float(stats.binomtest(only_first, total).pvalue) if total else 1.0
