"""`heatlas compact`: many small part files become few large ones, while others go on reading and writing.

Step by step, for the run's parts and for those of every evaluation:

1. A block of neighbouring shards that are all committed is read, written as one file in memory, and that is read back and compared.
2. The file is put, if it is not there, under a name that says its shards. From this moment it alone counts (part_files.py).
3. After a pause, in which listings that began before come to their end, the files that it replaces are removed, each after a last look:
   a row that a retry repaired meanwhile goes over into the merged file first.
4. `_SUCCESS`, where there is one, gets the new number of bytes.

Cut short anywhere, every row is still counted once, and the same command does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ...errors import UsageError
from ..text import counted
from .committed_shards import done_shards
from .evaluations import list_evaluations
from .merge_parts import write_merged
from .part_files import DoneShards, PartFile
from .part_names import MAPS
from .plan_files import read_plan
from .run_file import read_run
from .success_file import renew_success
from .superseded import delete_superseded

MEGABYTE = 10**6
SIZE_MB = 128
"""A file's size by default: large enough that opening it costs nothing beside reading it, small enough to be rewritten by a retry."""
LARGEST_MB = 4096
PAUSE = 2.0
"""Seconds; a listing of a local folder takes a fraction of one, one of an object store shows parts before merged files anyway."""


@dataclass
class Compacted:
    """What a call did."""

    out: str
    before: int = 0
    """Files that were there, those of evaluations included."""
    after: int = 0
    merged: list[str] = field(default_factory=list)
    """Files that were written, relative to `out`."""
    removed: int = 0
    """Files superseded by merged ones."""
    moved: int = 0
    """Shards in which a row repaired meanwhile went over into the merged file."""

    def as_json(self) -> dict[str, object]:
        """JSON values."""
        return {"out": self.out, "files_before": self.before, "files_after": self.after, "merged": self.merged, "removed": self.removed, "moved": self.moved}  # fmt: skip

    def text(self) -> str:
        """For people, ready to print."""
        if not self.merged and not self.removed:
            return f"{self.out}: {counted(self.after, 'file')}; nothing to merge"
        moved = f"; {counted(self.moved, 'shard')} repaired meanwhile, and kept so" if self.moved else ""
        return f"{self.out}: {self.before} files before, {self.after} now ({counted(len(self.merged), 'merged file')} written){moved}"


def compact_store(out: str, *, size_mb: int = SIZE_MB, say: Callable[[str], object] = lambda _: None) -> Compacted:
    """Merge the small part files of a run, finished or not, into large ones.

    Args:
        out: Directory or URI of the run.
        size_mb: Wanted size of a file in MB (10^6 bytes), 1 to 4096; files come out between half of it and it.
        say: Hears of every file that was written.

    Raises:
        UsageError: If `out` is not a store, or `size_mb` is out of range.
        StorageError: If storage fails or a part is damaged; every row is still there once, and the same call does the rest.
    """
    if isinstance(size_mb, bool) or not isinstance(size_mb, int) or not 1 <= size_mb <= LARGEST_MB:
        raise UsageError(
            f"the size of a file must be 1 to {LARGEST_MB} MB, got {size_mb!r}; leave it out for {SIZE_MB}"
        )
    planned = len(read_plan(out, read_run(out)).shards)
    folders = [MAPS, *(evaluation.folder for evaluation in list_evaluations(out))]
    listings = {folder: done_shards(out, folder) for folder in folders}
    done = Compacted(out, before=sum(map(_count, listings.values())))
    for listing in listings.values():
        for files in blocks(listing, planned, size_mb * MEGABYTE):
            merged = write_merged(out, files)
            done.merged.append(merged.path)
            say(f"{merged.path}: {len(files)} files in one")
    if done.merged:
        time.sleep(PAUSE)
    for folder in folders:
        removed, moved = delete_superseded(out, done_shards(out, folder))
        done.removed, done.moved = done.removed + removed, done.moved + moved
    for folder in folders:
        renew_success(out, folder)
    done.after = sum(_count(done_shards(out, folder)) for folder in folders)
    return done


def _count(listing: DoneShards) -> int:
    return len(listing.files) + len(listing.superseded)


def blocks(listing: DoneShards, planned: int, size: int) -> Iterator[list[PartFile]]:
    """The files to be merged into one each: aligned blocks of shards that are all there, in two files or more.

    The width follows from the mean size of a shard, so that a block has about `size` bytes and not more. Merged files of a quarter of
    that stay as they are: merging makes shards smaller, and the same call twice should not do more than once.
    """
    mean = sum(listing.values()) / max(1, len(listing))
    width = 1 << (max(1, int(size // max(1.0, mean))).bit_length() - 1)
    for first in range(0, planned, width):
        shards = range(first, min(first + width, planned))
        files = listing.files_with(shards)
        small = any(file.first == file.last or file.size < size / 4 for file in files)
        if small and len(files) > 1 and all(shard in listing for shard in shards):
            yield files
