"""Which file holds which shard. A shard's own part does, unless a merged file covers it; then that file alone counts.

A merged file's name says its shards. Ranges are aligned blocks of a power of two (the last one is cut off where the plan ends), so any
two of them are nested or have nothing in common, whoever wrote them and however large they wanted their files: of nested files the
widest counts, and all others are superseded. That is what makes one `put` the moment at which a merged file takes effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...errors import StorageError
from ..storage.location import child
from .part_names import MAPS, MERGED, PART, merged_path, part_path


@dataclass(frozen=True, order=True)
class PartFile:
    """One file with the rows of the shards `first` to `last`."""

    first: int
    last: int
    size: int = 0
    """Bytes."""
    folder: str = MAPS

    @property
    def path(self) -> str:
        """Where it lies, relative to the run's directory."""
        if self.first == self.last:
            return part_path(self.first, self.folder)
        return merged_path(self.first, self.last, self.folder)

    @property
    def name(self) -> str:
        """The last component of `path`."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def shards(self) -> range:
        return range(self.first, self.last + 1)

    def uri(self, out: str) -> str:
        """The full place."""
        return child(out, self.path)

    def covers(self, other: PartFile) -> bool:
        return self.first <= other.first and other.last <= self.last


class DoneShards(Mapping[int, int]):
    """The committed shards by index, in order, as one listing showed them: shard -> its share of its file's bytes."""

    def __init__(self, files: Iterable[PartFile]):
        self.files, self.superseded = resolved(files)
        """The files that count, in order of their shards; and those whose shards lie in one of them."""
        self._by_shard = {index: file for file in self.files for index in file.shards}

    def __getitem__(self, index: int) -> int:
        file = self._by_shard[index]
        share, rest = divmod(file.size, len(file.shards))
        return share + (rest if index == file.first else 0)

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_shard)

    def __len__(self) -> int:
        return len(self._by_shard)

    def file_of(self, index: int) -> PartFile | None:
        """The file that holds a shard; None if it is not committed."""
        return self._by_shard.get(index)

    def files_with(self, shards: Iterable[int]) -> list[PartFile]:
        """The files that hold any of these shards, in order."""
        return sorted({file for index in shards if (file := self._by_shard.get(index)) is not None})


def listed(sizes: Mapping[str, int], folder: str = MAPS) -> DoneShards:
    """What a listing (base name -> bytes) of `folder` shows; names that are none of a store's are passed over.

    Raises:
        StorageError: If two merged files overlap, which no `heatlas compact` writes.
    """
    return DoneShards(file for name, size in sizes.items() if (file := part_file(name, size, folder)) is not None)


def part_file(name: str, size: int = 0, folder: str = MAPS) -> PartFile | None:
    """The file of that base name; None for any other name."""
    if match := PART.fullmatch(name):
        return PartFile(int(match[1]), int(match[1]), size, folder)
    if (match := MERGED.fullmatch(name)) and is_block(int(match[1]), int(match[2])):
        return PartFile(int(match[1]), int(match[2]), size, folder)
    return None


def is_block(first: int, last: int) -> bool:
    """Whether a merged file may hold these shards: an aligned block of a power of two, perhaps cut off at its end."""
    return last > first and first % block_width(last - first + 1) == 0


def block_width(count: int) -> int:
    """The smallest power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()


def resolved(files: Iterable[PartFile]) -> tuple[tuple[PartFile, ...], tuple[PartFile, ...]]:
    """The files that count and those that are superseded, both in order of their shards."""
    counting: list[PartFile] = []
    superseded: list[PartFile] = []
    for file in sorted(files, key=lambda part: (part.first, -part.last)):  # the widest of nested files comes first
        before = counting[-1] if counting else None
        if before is None or before.last < file.first:
            counting.append(file)
        elif before.covers(file):
            superseded.append(file)
        else:
            raise StorageError(f"{before.path} and {file.path} overlap, and neither holds all of the other; "
                               "move one of them away and run the same command again")  # fmt: skip
    return tuple(counting), tuple(superseded)
