"""The names in a store: which file is whose. A part's name is a function of its shard alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..engine.errors import StorageError
from .location import child

MAPS = "maps"
SUCCESS = "_SUCCESS"
PART = re.compile(r"part-(\d{6,})\.parquet")


def part_path(index: int, folder: str = MAPS) -> str:
    """Where the shard `index` is stored, relative to the run's directory."""
    return f"{folder}/part-{index:06d}.parquet"


def part_uris(out: str, indices: Sequence[int], folder: str = MAPS) -> list[str]:
    """The full places of some parts."""
    return [child(out, part_path(index, folder)) for index in indices]


def part_index(path: str) -> int:
    """The shard of a part file; the inverse of `part_path` for any path or URI that ends in one."""
    match = PART.fullmatch(path.rsplit("/", 1)[-1])
    if match is None:
        raise StorageError(f"{path!r} is no part file; parts are called {part_path(42)}")
    return int(match[1])


def written_by(folder: str) -> str:
    """The command that writes the parts in `folder`, for messages."""
    return "heatlas explain" if folder == MAPS else "heatlas evaluate"
