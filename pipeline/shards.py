"""The plan of a run: which samples form which shard. A pure function of the listing and one number, the shard size; it does
not know of workers, so any number of them produces the same files.

A *listing* is an Arrow table, one row per sample: `id`, `uri`, `label` (class index), `boxes`, `mask_uri`, and the data set's
own columns with `EXTRA` before their names; sorted by `id`, but for sources that are read faster as they are stored.
It stays columnar, because ten million Python objects would not fit.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from ..workers.samples import Sample, Shard

EXTRA = "extra:"
"""Before the names of the data set's own columns."""

DRAWN_ON, SCALED_FROM = "drawn_on", "scaled_from"
"""Columns of the width and height for which boxes and masks were drawn: where they must be the image's, and where they are scaled to it."""

SHARDS_WANTED = 64
LARGEST_SHARD = 256
LARGEST_MEASURED_SHARD = 1024
"""Where it was measured that so many images take no longer than a shard should."""


def default_shard_size(sample_count: int, least: int = 1) -> int:
    """Samples per shard when nobody asks for a number: 64 shards, each with 1 to 256 samples.

    Args:
        sample_count: Of the listing.
        least: Samples of a shard that the method needs to fill its batches; a data set of fewer than two such shards is halved.
    """
    shared = min(least, max(1, -(-sample_count // 2)), LARGEST_MEASURED_SHARD)
    return max(min(-(-sample_count // SHARDS_WANTED), LARGEST_SHARD), shared)


def plan_shards(sample_count: int, shard_size: int) -> list[Shard]:
    """Cut the listing into consecutive half-open ranges of at most `shard_size` samples; sizes differ by at most one.

    Raises:
        DataError: If there is nothing to cut or the size is not positive.
    """
    if sample_count < 1:
        raise DataError(f"a run needs at least 1 sample, got {sample_count}; check that --data names the data set")
    if shard_size < 1:
        raise DataError(f"the shard size must be at least 1, got {shard_size}; leave it out for a fitting one")
    return cut(sample_count, -(-sample_count // shard_size))


def cut(sample_count: int, count: int) -> list[Shard]:
    """`count` consecutive shards; these two numbers are all that a plan depends on."""
    edges = [index * sample_count // count for index in range(count + 1)]
    return [Shard(index, start, stop) for index, (start, stop) in enumerate(itertools.pairwise(edges))]


def cut_containers(containers: pa.ChunkedArray) -> list[Shard]:
    """Shards that each lie in one container: a container is one, unless it has more than `LARGEST_SHARD` samples and is cut.

    Args:
        containers: For every sample of the listing the file that it lies in; those of a file stand together.
    """
    lengths = pc.run_end_encode(containers.combine_chunks()).run_ends.to_numpy()
    shards: list[Shard] = []
    for first, last in itertools.pairwise((0, *map(int, lengths))):
        pieces = cut(last - first, -(-(last - first) // LARGEST_SHARD))
        shards += [Shard(len(shards) + piece.index, first + piece.start, first + piece.stop) for piece in pieces]
    return shards


def planned_shards(facts: Mapping[str, Any]) -> list[Shard]:
    """The shards of a stored plan: `samples`, `shards` and, where they are not of equal size, `sizes`."""
    if "sizes" not in facts:
        return cut(facts["samples"], facts["shards"])
    edges = list(itertools.accumulate(facts["sizes"], initial=0))
    return [Shard(index, start, stop) for index, (start, stop) in enumerate(itertools.pairwise(edges))]


def plan_digest(listing_sha256: str, shards: Sequence[Shard]) -> str:
    """Sha256 (hex) that two plans share if and only if they store the same samples in the same shards."""
    edges = np.array([(shard.index, shard.start, shard.stop) for shard in shards], dtype="<i8")
    return hashlib.sha256(listing_sha256.encode() + edges.tobytes()).hexdigest()


def some_samples(listing: pa.Table, count: int) -> list[Sample]:
    """At most `count` samples evenly spread over the listing, so that every class folder gets its share."""
    total = len(listing)
    places = sorted({number * total // min(count, total) for number in range(min(count, total))})
    return [samples_of(listing, Shard(0, place, place + 1))[0] for place in places]


def samples_of(listing: pa.Table, shard: Shard) -> list[Sample]:
    """The shard's samples, in order, as plain objects.

    Raises:
        DataError: If the shard lies outside the listing, or labels are not resolved to class indices yet.
    """
    if not 0 <= shard.start <= shard.stop <= len(listing):
        raise DataError(f"shard {shard.index} is [{shard.start}, {shard.stop}) but the listing has {len(listing)} samples; "
                        "plan again from this listing")  # fmt: skip
    label = listing.schema.field("label").type
    if not (pa.types.is_integer(label) or pa.types.is_null(label)):
        raise DataError(f"labels are {label}, not class indices; resolve them before planning")
    return [sample_of_row(row) for row in listing.slice(shard.start, len(shard)).to_pylist()]


def sample_of_row(row: Mapping[str, Any]) -> Sample:
    """A row of a listing as a plain object; its label is a class index or None."""
    boxes = tuple(tuple(box) for box in row.get("boxes") or ())
    extra = tuple((name.removeprefix(EXTRA), value) for name, value in row.items() if name.startswith(EXTRA))
    scaled = row.get(SCALED_FROM)
    size = scaled or row.get(DRAWN_ON)
    return Sample(
        row["id"], row["uri"], row["label"], boxes, row.get("mask_uri"), extra=extra,
        drawn_on=None if size is None else (size[0], size[1]), scale_truth=scaled is not None,
    )  # fmt: skip
