"""Draw images from a listing so that every label has its share."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import pyarrow as pa

from ...errors import UsageError


def stratified_ids(listing: pa.Table, count: int, seed: int) -> list[str]:
    """Ids of `count` samples, each label with its share of them, and one at least as far as they suffice, sorted.

    Which ones depends on the seed and the ids alone, not on the order of the listing.

    Args:
        listing: With `id` and `label`, which may be null.
        count: At least 1; all are taken where there are fewer.
        seed: Of the draw.

    Raises:
        UsageError: For a count below 1.
    """
    if count < 1:
        raise UsageError(f"--count must be at least 1 image, got {count}")
    by_label: dict[object, list[str]] = defaultdict(list)
    for identity, label in zip(listing["id"].to_pylist(), listing["label"].to_pylist(), strict=True):
        by_label[label].append(identity)
    if count >= len(listing):
        return sorted(identity for ids in by_label.values() for identity in ids)
    for ids in by_label.values():
        ids.sort(key=lambda identity: _digest(identity, seed))
    # the k-th of a label's n images stands at (k - 1/2) / n: taken in this order, every label has its share at any count
    places = [
        ((place + 0.5) / len(ids) if place else 0.0, _digest(ids[0], seed), ids[place])
        for ids in by_label.values()
        for place in range(len(ids))
    ]
    return sorted(identity for _, _, identity in sorted(places)[:count])


def _digest(identity: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{identity}".encode("utf-8", "surrogateescape")).digest()
