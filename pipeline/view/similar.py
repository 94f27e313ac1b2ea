"""Find the rows that are most similar to one row, by their maps or by the features of the images."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UsageError
from .row_vectors import AT_ONCE, VectorSample

NEIGHBOURS = 12


def nearest_rows(sample: VectorSample, n: int, count: int = NEIGHBOURS) -> dict[str, Any]:
    """The nearest rows, the most similar first.

    Args:
        sample: Among which rows are searched.
        n: Number of the row that they are compared with; it need not be in the sample.
        count: How many.

    Returns:
        `rows` (each `n` and `similarity` in [0, 1]: the Bhattacharyya coefficient of two maps, or the cosine of two images' features)
        and `searched`, the number of rows that were compared.

    Raises:
        UsageError: If the store has no such vectors, or the row has none.
    """
    own = sample.vectors.of([n])[0]
    if not own.any():
        raise UsageError(f"this row has no {sample.vectors.name} to compare")
    numbers, values = sample.numbers, sample.values
    similarity = np.concatenate(
        [values[start : start + AT_ONCE].astype(np.float32) @ own for start in range(0, len(values), AT_ONCE)]
    )
    similarity[numbers == n] = -1
    best = np.argsort(-similarity, kind="stable")[:count]
    rows = [{"n": int(numbers[place]), "similarity": round(float(min(similarity[place], 1.0)), 4)} for place in best if similarity[place] > 0]  # fmt: skip
    return {"rows": rows, "searched": len(numbers)}
