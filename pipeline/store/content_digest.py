"""Digest of what a store says, whatever files, encodings and workers it came from."""

from __future__ import annotations

from .committed_shards import part_tables
from .part_names import MAPS
from .row_digest import combined, row_digests


def logical_digest(out: str, folder: str = MAPS) -> str:
    """What the store says as 64 hex digits: equal for any number of workers, kills, resumes and Parquet encodings.

    Computed from the rows themselves, not from what the files say of them. Rows count as a set, so shard borders do not matter.
    Left out: `seconds`, `device` and `padded_forwards`, and in error texts the numbers.
    """
    return combined(digest for table in part_tables(out, folder=folder) for digest in row_digests(table))
