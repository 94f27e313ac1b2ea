"""Embed rows in the plane by their maps or features, for a scatter plot in which a region can be chosen."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from ...errors import UsageError, did_you_mean
from .row_vectors import VectorSample
from .view_rows import ViewRows

PCA_POINTS = 20_000
TSNE_POINTS = 2_000
"""Points of each layout, an even sample where there are more rows."""
PERPLEXITY = 30.0
FEWEST = 3
LEAST_VARIANCE = 1e-12
"""Below it all rows are the same point."""
LAYOUTS = ("pca", "tsne")
TABLE = "embedded"


@dataclass(frozen=True, eq=False)
class Embedding:
    """Points of one layout."""

    kind: str
    """`map-pca`, `map-tsne`, `features-pca` or `features-tsne`."""
    numbers: Int[np.ndarray, " point"]
    """Row of each point, ascending."""
    points: Float[np.ndarray, "point 2"]
    """In the unit square, both axes to the same scale."""
    explained: float | None
    """Share of the variance that the two axes of a PCA hold; None for t-SNE."""


class Embeddings:
    """The layouts of one store, made when they are first asked for; each is also put into the table `embedded(kind, n, x, y)`."""

    def __init__(self, table: ViewRows, samples: Mapping[str, VectorSample]):
        self._table, self._samples = table, samples
        self._made: dict[str, Embedding] = {}
        self._lock = threading.Lock()
        self.kinds = tuple(f"{name}-{layout}" for name in samples for layout in LAYOUTS)

    def get(self, kind: str) -> Embedding:
        """The layout of that kind.

        Raises:
            UsageError: For an unknown kind, or fewer than 3 rows.
        """
        if kind not in self.kinds:
            raise UsageError(f"unknown embedding {kind!r}{did_you_mean(kind, self.kinds)}; there are {', '.join(self.kinds) or 'none'}")  # fmt: skip
        with self._lock:
            if kind not in self._made:
                made = self._make(kind)
                self._table.add_points(kind, made.numbers, made.points)
                self._made[kind] = made
            return self._made[kind]

    def table(self, kind: str) -> pa.Table:
        """The points with what they are coloured by: n, x, y, label, prediction, correct, off_object, confidence."""
        embedding, arrays = self.get(kind), self._table.arrays
        n = embedding.numbers
        labels = np.append(arrays.labels, -1)[arrays.label_code[n]]
        return pa.table(
            {
                "n": pa.array(n.astype(np.int32)), "x": pa.array(embedding.points[:, 0].astype(np.float32)),
                "y": pa.array(embedding.points[:, 1].astype(np.float32)), "label": pa.array(labels.astype(np.int32)),
                "correct": pa.array(arrays.is_correct[n]), "off_object": pa.array(arrays.off_object[n].astype(np.int8)),
                "confidence": pa.array(arrays.confidence[n].astype(np.float32)),
            }
        )  # fmt: skip

    def _make(self, kind: str) -> Embedding:
        name, _, layout = kind.partition("-")
        sample = self._samples[name]
        places = sample.drawn(PCA_POINTS if layout == "pca" else TSNE_POINTS)
        if len(places) < FEWEST:
            raise UsageError(f"an embedding needs at least {FEWEST} rows, got {len(places)}")
        values = sample.values[places].astype(np.float32)
        points, explained = principal_plane(values)
        if layout == "tsne":
            points, explained = neighbour_plane(values), None
        return Embedding(kind, sample.numbers[places], in_unit_square(points), explained)


def principal_plane(values: Float[np.ndarray, "row number"]) -> tuple[Float[np.ndarray, "row 2"], float]:
    """The first two principal components, and the share of the variance that they hold."""
    from sklearn.decomposition import PCA  # here, because importing it takes a second

    if float(values.var(axis=0).sum()) < LEAST_VARIANCE:
        return np.zeros((len(values), 2)), 0.0
    count = min(2, values.shape[1])
    pca = PCA(count, svd_solver="randomized", random_state=0)
    points = np.zeros((len(values), 2))
    points[:, :count] = pca.fit_transform(values)
    return points, float(pca.explained_variance_ratio_.sum())


def neighbour_plane(values: Float[np.ndarray, "row number"]) -> Float[np.ndarray, "row 2"]:
    """t-SNE (van der Maaten and Hinton, 2008) of the first 50 principal components, with fixed random numbers."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if float(values.var(axis=0).sum()) < LEAST_VARIANCE:
        return np.zeros((len(values), 2))
    reduced = PCA(min(50, *values.shape), random_state=0, svd_solver="randomized").fit_transform(values)
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(reduced)


def in_unit_square(points: Float[np.ndarray, "row 2"]) -> Float[np.ndarray, "row 2"]:
    """The points moved and scaled into [0, 1] x [0, 1], both axes alike, in the middle of the shorter one; rounded to 1e-4."""
    low, high = points.min(axis=0), points.max(axis=0)
    span = max(float((high - low).max()), 1e-12)
    return np.round((points - low) / span + (1 - (high - low) / span) / 2, 4)
