"""Means over images with bootstrap intervals, from sums that can be merged.

Images are put into buckets by a digest of their ids, and a bucket keeps sums and counts only. Resampling buckets is resampling images
as long as there are fewer of them than buckets, and a fair approximation beyond, where an image more or less does not matter; it
costs the same for a thousand images and for ten million. What belongs to one image (metrics, chance baselines, another method's) is in one
bucket, so that everything is resampled together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import UsageError

BUCKETS = 2**14
RESAMPLES = 1000
LEVEL = 0.95
_AT_ONCE = 2**21
"""Random numbers drawn at a time."""


def bucket_of(identity: str) -> int:
    """The bucket of an image, as DuckDB computes it: `md5_number_lower(id) % 16384`."""
    digest = hashlib.md5(identity.encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") % BUCKETS


def buckets_of(ids: Iterable[str]) -> np.ndarray:
    """The buckets `(image,)` of some images."""
    return np.fromiter((bucket_of(identity) for identity in ids), np.int64)


@dataclass(frozen=True, eq=False)
class BucketSums:
    """Sums and counts of some columns over images, by bucket."""

    buckets: np.ndarray
    """`(bucket,)` numbers of the buckets that are not empty, ascending."""
    sums: np.ndarray
    """`(bucket, column)` float64."""
    counts: np.ndarray
    """`(bucket, column)` images of the bucket that have a value."""

    @classmethod
    def of(cls, ids: Sequence[str], values: np.ndarray) -> BucketSums:
        """The sums of `values` `(image, column)`; NaN where an image has no value."""
        return cls.of_buckets(buckets_of(ids), values)

    @classmethod
    def of_buckets(cls, buckets: np.ndarray, values: np.ndarray) -> BucketSums:
        """As `of`, with the bucket `(image,)` of every image known."""
        there = ~np.isnan(values)
        return cls._grouped(buckets, np.where(there, values, 0.0), there.astype(np.int64))

    @classmethod
    def _grouped(cls, buckets: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> BucketSums:
        kept, places = np.unique(buckets, return_inverse=True)
        total, number = np.zeros((len(kept), sums.shape[1])), np.zeros((len(kept), sums.shape[1]), np.int64)
        np.add.at(total, places, sums)
        np.add.at(number, places, counts)
        return cls(kept, total, number)

    @property
    def number(self) -> np.ndarray:
        """`(column,)` images that have a value."""
        return self.counts.sum(axis=0)

    @property
    def means(self) -> np.ndarray:
        """`(column,)` mean over the images that have a value; NaN where none has."""
        return _ratio(self.sums.sum(axis=0), self.number)

    def intervals(
        self, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end of each mean's percentile bootstrap interval, each `(column,)`.

        Args:
            resamples: How often as many buckets as there are are drawn with replacement, at least 1.
            seed: Of the draws; the same for the same buckets.
            level: Share of the resampled means that lie between the ends.

        Returns:
            NaN where fewer than two buckets have a value, or no resample met one: nothing can be said about the spread then.
        """
        size = len(self.buckets)
        generator = np.random.default_rng(seed)
        means = np.full((resamples, self.sums.shape[1]), np.nan)
        step = max(1, _AT_ONCE // max(1, size))
        for start in range(0, resamples, step):
            many = min(step, resamples - start)
            drawn = generator.integers(size, size=(many, size)) if size else np.zeros((many, 0), np.int64)
            weights = np.stack([np.bincount(row, minlength=size) for row in drawn]).astype(np.float64)
            means[start : start + many] = _ratio(weights @ self.sums, weights @ self.counts)
        enough = ((self.counts > 0).sum(axis=0) > 1) & ~np.isnan(means).all(axis=0)
        ends = np.full((2, self.sums.shape[1]), np.nan)
        if enough.any():
            ends[:, enough] = np.nanquantile(means[:, enough], [(1 - level) / 2, (1 + level) / 2], axis=0)
        return ends[0], ends[1]


def check_bootstrap(resamples: int, seed: int) -> None:
    """Refuse what cannot be drawn.

    Raises:
        UsageError: Naming the value and what it may be.
    """
    if resamples < 1:
        raise UsageError(f"resamples must be at least 1, got {resamples}; leave it out for {RESAMPLES}")
    if seed < 0:
        raise UsageError(f"seed must be at least 0, got {seed}; leave it out for 0")


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
