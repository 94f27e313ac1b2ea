"""Which samples of a run are looked at more closely (chance maps, sanity check): the same ones in every run over the same listing.

A sample is chosen by a digest of its id, never by its place, so neither order nor shards nor workers matter; a smaller sample is
part of a larger one; and two runs over the same data look at the same images, which lets them be compared in pairs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import pyarrow as pa

from ...workers.worker.shard_attempt import seed_of

ALL = 2**64
"""Above every digest."""


def chosen_below(listing: pa.Table, count: int) -> int:
    """The limit under which the digests (`seed_of`) of exactly `count` ids lie: 0 for none, `ALL` where there are no more ids.

    Args:
        listing: With unique ids in the column `id`.
        count: At least 0.
    """
    if count == 0:
        return 0
    if count >= len(listing):
        return ALL
    return heapq.nsmallest(count, _digests(listing))[-1] + 1


def _digests(listing: pa.Table) -> Iterator[int]:
    for chunk in listing["id"].chunks:
        yield from map(seed_of, chunk.to_pylist())
