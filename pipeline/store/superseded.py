"""Files that a merged one took the place of: their last look and their end."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import StorageError
from ...statuses import OK
from ..storage.compare_and_swap import withdraw
from .footer_reader import file_summaries
from .merge_parts import parsed_shards
from .part_files import DoneShards, PartFile
from .part_summary import stored_summaries, stored_summary
from .rewrite_shard import change_shard, merge


def remove_left_over(out: str, listing: DoneShards) -> tuple[int, int]:
    """Remove the files of a folder whose shards lie in merged ones; rows that were repaired in them since go over first.

    Returns:
        How many files are gone, and how many shards had such rows.

    Raises:
        StorageError: If storage fails, or a file is damaged; it is then still there, and nothing is lost.
    """
    moved: list[int] = []
    known: dict[PartFile, dict[int, str | None]] = {}
    for file in listing.left_over:
        holder = listing.file_of(file.first)
        if holder is None:  # cannot be: a file is left over because another one holds its shards
            continue
        if holder not in known:
            known[holder] = dict(zip(holder.shards, (one.digest for one in file_summaries(out, holder)), strict=True))
        withdraw(file.uri(out), lambda data, file=file, there=known[holder]: moved.extend(bring_over(out, file, data, there)))  # fmt: skip
    return len(listing.left_over), len(set(moved))


def bring_over(out: str, file: PartFile, data: bytes, there: dict[int, str | None]) -> list[int]:
    """Take over rows that are `ok` in a left-over file and not so where they count.

    Args:
        out: The run's directory.
        file: The left-over file.
        data: Its content.
        there: The digest, by shard, of the rows that count.

    Returns:
        The shards for which that was needed.
    """
    says = digests_of(file, data)
    if None not in says.values() and all(says[shard] == there[shard] for shard in file.shards):
        return []
    return [shard for shard, (table, _) in parsed_shards(out, file, data).items() if says[shard] != there[shard] and _better(out, file, shard, table)]  # fmt: skip


def digests_of(file: PartFile, data: bytes) -> dict[int, str | None]:
    """What the footer of a file says of its shards; None where it says nothing."""
    try:
        metadata = pq.read_metadata(io.BytesIO(data)).metadata
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {file.path}, which is left over from merging: {error}; its rows are in a merged file, so "
                           "delete it and call again") from error  # fmt: skip
    one, several = stored_summary(metadata), stored_summaries(metadata)
    found = [one] if one is not None and file.first == file.last else several or []
    digests = [summary.digest for summary in found if summary is not None]
    return dict(
        zip(file.shards, digests if len(digests) == len(file.shards) else [None] * len(file.shards), strict=True)
    )


def _better(out: str, file: PartFile, shard: int, table: pa.Table) -> bool:
    fine = table.filter(pc.equal(table["status"], OK))  # pyright: ignore[reportAttributeAccessIssue]
    return change_shard(out, shard, lambda stored: merge(stored, fine), file.folder)
