"""Which shards of a run are committed, in which file each lies, and what is in them.

out/_run.json                     see run_file.py
out/maps/part-000042.parquet      one file per shard, named by the shard alone
out/maps/parts-000000-000063.parquet   several shards merged by `heatlas compact`, see part_files.py
out/_SUCCESS                      last, with totals, see success_file.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from ..storage.backoff import with_retries
from ..storage.location import child, locate, sizes_in
from .earlier_columns import renamed_schema
from .footer_reader import part_summaries
from .part_files import DoneShards, PartFile, listed
from .part_names import MAPS
from .part_reader import open_file, read_range, shard_ranges
from .part_summary import added_up


def done_shards(out: str, folder: str = MAPS) -> DoneShards:
    """Index and size in bytes of every committed shard, in order, by one listing. A directory not there has none.

    A shard in a merged file has its share of that file's size.

    Args:
        out: The run's directory.
        folder: Where in it the parts lie; the functions below take it too.

    Raises:
        StorageError: If the listing fails.
    """
    place = child(out, folder)
    fs, path = locate(place)
    return listed(with_retries(lambda: sizes_in(fs, path), f"list {place}"), folder)


def file_of(out: str, index: int, folder: str = MAPS) -> PartFile:
    """The file that holds a shard; the shard's own part, also if there is none."""
    return done_shards(out, folder).file_of(index) or PartFile(index, index, folder=folder)


def read_part(out: str, index: int, columns: Sequence[str] | None = None, folder: str = MAPS) -> pa.Table:
    """The rows of one committed shard; `columns=None` reads all.

    Raises:
        StorageError: If the file is missing or damaged.
    """
    file = file_of(out, index, folder)
    with open_file(out, file) as opened:
        return read_range(opened, *shard_ranges(opened, file)[index], columns)


def read_file_schema(out: str, file: PartFile) -> pa.Schema:
    """Columns, under today's names, and metadata of a file, from its footer.

    Raises:
        StorageError: If the file is missing or damaged.
    """
    with open_file(out, file) as opened:
        return renamed_schema(opened.schema_arrow)


def part_tables(out: str, columns: Sequence[str] | None = None, folder: str = MAPS) -> Iterator[pa.Table]:
    """The committed rows, a few MB of them in memory at a time: in stored order, parts one after the other."""
    for file in done_shards(out, folder).files:
        with open_file(out, file) as opened:
            for group in range(opened.num_row_groups):
                yield opened.read_row_group(group, columns=None if columns is None else list(columns))


def row_totals(out: str, done: DoneShards | None = None, folder: str = MAPS) -> dict[str, Any]:
    """What is stored so far, from the footers of the parts.

    Args:
        out: The run's directory.
        done: What `done_shards` gave, if it has been asked already.

    Returns:
        As `added_up`, with `bytes`.
    """
    done = done_shards(out, folder) if done is None else done
    return {**added_up(part_summaries(out, done, folder).values()), "bytes": sum(done.values())}
