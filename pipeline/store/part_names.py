"""The names in a store: which file is whose. A part's name is a function of its shard alone, a merged file's of its first and last."""

from __future__ import annotations

import re

MAPS = "maps"
SUCCESS = "_SUCCESS"
PART = re.compile(r"part-(\d{6,})\.parquet")
MERGED = re.compile(r"parts-(\d{6,})-(\d{6,})\.parquet")


def part_path(index: int, folder: str = MAPS) -> str:
    """Where the shard `index` is stored, relative to the run's directory."""
    return f"{folder}/part-{index:06d}.parquet"


def merged_path(first: int, last: int, folder: str = MAPS) -> str:
    """Where `heatlas compact` puts the shards `first` to `last` together.

    It sorts behind every part, so a listing in order, page by page, that misses a part which was merged meanwhile sees this file.
    """
    return f"{folder}/parts-{first:06d}-{last:06d}.parquet"


def written_by(folder: str) -> str:
    """The command that writes the parts in `folder`, for messages."""
    return "heatlas explain` or `heatlas import" if folder == MAPS else "heatlas evaluate"
