"""Delete part files superseded by a merged file, first migrating rows that were repaired in them meanwhile."""

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


def delete_superseded(out: str, listing: DoneShards) -> tuple[int, int]:
    """Delete the files of a folder whose shards lie in merged files; rows repaired in them since are migrated first.

    Returns:
        How many files were deleted, and how many shards had such rows.

    Raises:
        StorageError: If storage fails, or a file is damaged; it is then still there, and nothing is lost.
    """
    moved: list[int] = []
    known: dict[PartFile, dict[int, str | None]] = {}
    for file in listing.superseded:
        holder = listing.file_of(file.first)
        if holder is None:  # cannot be: a file is superseded because another one holds its shards
            continue
        if holder not in known:
            known[holder] = dict(
                zip(holder.shards, (summary.digest for summary in file_summaries(out, holder)), strict=True)
            )
        withdraw(file.uri(out), lambda data, file=file, there=known[holder]: moved.extend(migrate_repaired_rows(out, file, data, there)))  # fmt: skip
    return len(listing.superseded), len(set(moved))


def migrate_repaired_rows(out: str, file: PartFile, data: bytes, there: dict[int, str | None]) -> list[int]:
    """Copy rows that are `ok` in a superseded file, and are not `ok` in the merged one, into the merged one.

    Args:
        out: The run's directory.
        file: The superseded file.
        data: Its content.
        there: The digest of the rows in the merged file, by shard.

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
        raise StorageError(f"cannot read {file.path}, which a merged file supersedes: {error}; its rows are in the merged "
                           "file, so delete it and run the same command again") from error  # fmt: skip
    own_summary, listed = stored_summary(metadata), stored_summaries(metadata)
    summaries = [own_summary] if own_summary is not None and file.first == file.last else listed or []
    digests = [summary.digest for summary in summaries if summary is not None]
    return dict(
        zip(file.shards, digests if len(digests) == len(file.shards) else [None] * len(file.shards), strict=True)
    )


def _better(out: str, file: PartFile, shard: int, table: pa.Table) -> bool:
    fine = table.filter(pc.equal(table["status"], OK))  # pyright: ignore[reportAttributeAccessIssue]
    return change_shard(out, shard, lambda stored: merge(stored, fine), file.folder)
